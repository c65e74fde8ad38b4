"""The soundbank: isolated recordings of sound events by class, and backgrounds to put them in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from task_aware.data.audio import RecordingCache, find_audio
from task_aware.data.labels import DESED_CLASSES
from task_aware.errors import DataError

# the event starts (nOn) or ends (nOff) cut: no part of its label
_CUT_SUFFIX = re.compile(r"(_nOn|_nOff)+$")


class Soundbank:
    """Foreground events by label and backgrounds, read once and cached in memory.

    Expects `ROOT/audio/train/soundbank/{foreground,background}` as DESED has it; `root` may also be the
    folder that holds `foreground` itself. Paths are relative to `folder` and sorted, so that what is drawn
    from them does not depend on where the data lie or on the file system.

    Attributes:
        foreground: label to recordings, for the labels that have any, in the order of `labels`.
        background: the background recordings; may be empty.
        absent: the labels without recordings.
        unknown: folders of foregrounds that are none of the labels; they are not used.
        rejected: unusable files found so far, with the reason.

    Raises:
        DataError: no such folder, or no foreground recording of any label.
    """

    def __init__(
        self,
        root: str | Path,
        labels: Sequence[str] = DESED_CLASSES,
        *,
        sample_rate: int = 16000,
        cache_bytes: int = 1 << 30,
        max_broken: float = 0.1,
    ) -> None:
        self.labels = tuple(labels)
        self.sample_rate = sample_rate
        self.folder = Path(root) / "audio" / "train" / "soundbank"
        if not self.folder.is_dir() and (Path(root) / "foreground").is_dir():
            self.folder = Path(root)
        if not (self.folder / "foreground").is_dir():
            raise DataError(
                f"{self.folder / 'foreground'} is not a folder; a soundbank is needed there, with one "
                "folder of recordings for each class."
            )
        recordings: dict[str, list[Path]] = {label: [] for label in self.labels}
        unknown = set()
        for path in find_audio(self.folder / "foreground", self.folder):
            # foreground/<Class>/..., or a file straight in foreground/, which has no class
            label = _CUT_SUFFIX.sub("", path.parts[1]) if len(path.parts) > 2 else ""
            if label in recordings:
                recordings[label].append(path)
            else:
                unknown.add(label or path.parts[1])
        self.foreground = {label: paths for label, paths in recordings.items() if paths}
        self.background = find_audio(self.folder / "background", self.folder)
        self.absent = tuple(label for label in self.labels if label not in self.foreground)
        self.unknown = tuple(sorted(unknown))
        if not self.foreground:
            found = f"; it has {', '.join(self.unknown)}" if self.unknown else ""
            raise DataError(
                f"{self.folder / 'foreground'} has no recording of {', '.join(self.labels)}{found}; put "
                ".wav, .flac or .ogg files into one folder for each class."
            )
        self._cache = RecordingCache(
            self.folder,
            sum(map(len, self.foreground.values())) + len(self.background),
            sample_rate=sample_rate,
            cache_bytes=cache_bytes,
            max_broken=max_broken,
        )

    @property
    def rejected(self) -> dict[str, str]:
        return self._cache.rejected

    def read(self, path: str | Path) -> np.ndarray:
        """A recording as float32 [N]; `path` as listed in `foreground` or `background`.

        Raises:
            RecordingError: this file is broken, empty, silent or non-finite; it is then listed in `rejected`.
            DataError: more than the share `max_broken` of the files is.
        """
        return self._cache.read(Path(path))

    def preload(self) -> None:
        """Read everything now (as far as the cache goes), so that forked workers share it."""
        self._cache.preload([*(path for paths in self.foreground.values() for path in paths), *self.background])

    def scan(self) -> dict[str, float]:
        """Seconds per label and of "background", from the headers alone; lists what cannot be opened."""
        groups = {**self.foreground, "background": self.background}
        return {
            name: sum(filter(None, (self._cache.seconds(path) for path in paths))) for name, paths in groups.items()
        }

    def describe(self) -> str:
        """A few lines for people: recordings and seconds per class, what is absent, not used or rejected."""
        seconds = self.scan()
        width = max(map(len, seconds))
        lines = [f"Soundbank {self.folder}"]
        for name, paths in {**self.foreground, "background": self.background}.items():
            lines.append(f"  {name:<{width}} {len(paths):6d} recordings {seconds[name]:9.1f} s")
        if self.absent:
            lines.append(f"  no recordings of {', '.join(self.absent)}")
        if self.unknown:
            lines.append(f"  not used, none of the labels: {', '.join(self.unknown)}")
        if self.rejected:
            lines.append(f"  {len(self.rejected)} unusable: {', '.join(sorted(self.rejected))}")
        return "\n".join(lines)
