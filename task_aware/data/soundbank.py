"""The soundbank: isolated recordings of sound events by class, and backgrounds to mix them with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from task_aware.base.errors import DataError
from task_aware.data.finding import find_audio
from task_aware.data.labels import MOST_LISTED, label_of, listed
from task_aware.data.recordings import Recording, Recordings

# the recording starts (nOn) or ends (nOff) within the event; not part of the label
_CUT_SUFFIX = re.compile(r"(_nOn|_nOff)+$")


class SoundbankFiles(NamedTuple):
    """Paths of a soundbank's recordings, relative to `folder`; see `Soundbank`."""

    folder: Path
    foreground: dict[str, list[Path]]
    background: list[Path]
    unknown: tuple[str, ...]
    others: list[Path]


def list_soundbank(root: str | Path, labels: Sequence[str] | None = None) -> SoundbankFiles:
    """Finds the recordings of these labels, or of all that the soundbank has. Raises DataError if there is none."""
    folder = Path(root) / "audio" / "train" / "soundbank"
    if not folder.is_dir() and (Path(root) / "foreground").is_dir():
        folder = Path(root)
    if not (folder / "foreground").is_dir():
        raise DataError(
            f"{folder / 'foreground'} is not a folder; expected a soundbank, with one "
            "folder of recordings for each class."
        )
    foreground: dict[str, list[Path]] = {label: [] for label in labels or ()}
    unknown, others = set(), []
    for path in find_audio(folder / "foreground", folder):
        # foreground/<Class>/..., or a file directly in foreground/, which has no class
        label = label_of(_CUT_SUFFIX.sub("", path.parts[1])) if len(path.parts) > 2 else ""
        if label in foreground or (label and labels is None):
            foreground.setdefault(label, []).append(path)
        else:
            unknown.add(label or path.parts[1])
            others.append(path)
    if labels is None:
        foreground = {label: foreground[label] for label in sorted(foreground)}
    return SoundbankFiles(folder, foreground, find_audio(folder / "background", folder), tuple(sorted(unknown)), others)


class Soundbank:
    """Foreground events by label, and backgrounds; decoded once and cached (`Recordings`).

    Expects `ROOT/audio/train/soundbank/{foreground,background}`, as in DESED; `root` may also be the folder that
    holds `foreground` itself. Paths are relative to `folder` and sorted, so that random draws depend neither on the
    location of the data nor on the file system.

    Attributes:
        foreground: usable recordings of each label that has any, in the order of `labels`.
        background: the usable background recordings; may be empty.
        absent: the labels without recordings.
        unknown: foreground folders that match none of the labels; they are ignored.
        rejected: unusable files, with the reason.

    Args:
        root: the folder.
        labels: the classes; None takes the folders of the soundbank.
        sample_rate: sample rate to decode to, Hz.
        channel: the channel to take, counted from 0; None takes the mean.
        max_broken: share of the recordings that may be unusable.
        others_are_noise: whether foreground recordings of other classes are backgrounds, instead of being ignored.

    Raises:
        DataError: the folder is missing, no label has a usable recording, too many recordings are unusable, or the
            cache cannot be written.
    """

    def __init__(
        self,
        root: str | Path,
        labels: Sequence[str] | None = None,
        *,
        sample_rate: int = 16000,
        channel: int | None = None,
        max_broken: float = 0.1,
        others_are_noise: bool = False,
    ) -> None:
        self.sample_rate = sample_rate
        self.folder, recordings, background, self.unknown, others = list_soundbank(root, labels)
        if others_are_noise:
            background, self.unknown = [*background, *others], ()
        self.labels = tuple(recordings)
        self._recordings = Recordings(
            self.folder,
            [*(path for paths in recordings.values() for path in paths), *background],
            sample_rate=sample_rate,
            channel=channel,
            max_broken=max_broken,
        )
        usable = {label: self._recordings.usable(paths) for label, paths in recordings.items()}
        self.foreground = {label: paths for label, paths in usable.items() if paths}
        self.background = self._recordings.usable(background)
        self.absent = tuple(label for label in self.labels if label not in self.foreground)
        if not self.foreground:
            found = f"; it only has {listed(self.unknown)}" if self.unknown else ""
            wanted = listed(self.labels) or "any class"
            raise DataError(
                f"{self.folder / 'foreground'} has no usable recording of {wanted}{found}; put "
                ".wav, .flac or .ogg files into one folder for each class."
            )

    @property
    def rejected(self) -> dict[str, str]:
        return self._recordings.rejected

    def read(self, path: Path) -> Recording:
        """Reads a recording; `path` is one of those in `foreground` or `background`."""
        return self._recordings.read(path)

    def drop_cache(self) -> None:
        """Removes the decoded recordings from the cache, for a bank that is not opened again."""
        for file in (self._recordings.file, self._recordings.file.with_suffix(".lock")):
            file.unlink(missing_ok=True)

    def seconds(self) -> dict[str, float]:
        """Total duration of each label and of "background", seconds."""
        groups = {**self.foreground, "background": self.background}
        return {name: sum(map(self._recordings.seconds, paths)) for name, paths in groups.items()}

    def describe(self) -> str:
        """Summarises recordings and seconds per class, and the absent, ignored and rejected ones, in a few lines."""
        seconds = self.seconds()
        counts = {name: len(paths) for name, paths in {**self.foreground, "background": self.background}.items()}
        if len(self.foreground) > MOST_LISTED:
            fewest, most = (choose(counts[label] for label in self.foreground) for choose in (min, max))
            name = f"{len(self.foreground):,} classes of {fewest:,} to {most:,} each"
            seconds[name] = sum(seconds[label] for label in self.foreground)
            counts = {name: sum(counts[label] for label in self.foreground), "background": counts["background"]}
        width = max(map(len, counts))
        lines = [f"Soundbank {self.folder}"]
        lines += [f"  {name:<{width}} {count:6d} recordings {seconds[name]:9.1f} s" for name, count in counts.items()]
        if self.absent:
            lines.append(f"  no recordings of {listed(self.absent)}")
        if self.unknown:
            lines.append(f"  ignored, as none of the labels: {listed(self.unknown)}")
        if self.rejected:
            lines.append(f"  {len(self.rejected)} unusable: {', '.join(sorted(self.rejected))}")
        return "\n".join(lines)
