"""Room impulse responses, grouped by room."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from task_aware.data.audio import RecordingCache, RecordingError, find_audio
from task_aware.errors import DataError


class RirBank:
    """Room impulse responses (RIRs) by room, read once and cached in memory.

    Three layouts are understood, each also one folder above (`rir_data/`, and in it `split`):

    - FUSS: every folder with recordings (`rirs_*/`) is a room;
    - a flat folder with `rirs.tsv`, whose columns `filename` and `room` say which recordings share a room;
    - a flat folder without it: every recording is a room of its own.

    Attributes:
        rooms: the paths of each room, relative to `folder`, in an order of names alone.
        missing: filenames of rirs.tsv that are not in the folder.
        rejected: unusable files found so far, with the reason.

    Args:
        max_seconds: responses are cut there.
        split: the part of FUSS to take.

    Raises:
        DataError: no such folder, no recordings in it, or a rirs.tsv that cannot be read.
    """

    def __init__(
        self,
        root: str | Path,
        max_seconds: float = 1.0,
        *,
        split: str = "train",
        sample_rate: int = 16000,
        cache_bytes: int = 1 << 28,
        max_broken: float = 0.1,
    ) -> None:
        if not max_seconds > 0:
            raise ValueError(f"max_seconds must be above 0, got {max_seconds}.")
        self.folder = Path(root)
        for below in ("rir_data", split):
            if (self.folder / below).is_dir():
                self.folder = self.folder / below
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is not a folder; room impulse responses are wanted there.")
        paths = find_audio(self.folder, self.folder)
        if not paths:
            raise DataError(f"{self.folder} has no .wav, .flac or .ogg file; room impulse responses are wanted there.")
        self.sample_rate = sample_rate
        self.max_samples = max(1, round(max_seconds * sample_rate))
        table = self.folder / "rirs.tsv"
        names = _read_rooms(table) if table.is_file() else {}
        rooms: dict[str, list[Path]] = {}
        for path in paths:
            name = path.as_posix()
            own = f"folder {path.parent.as_posix()}" if len(path.parts) > 1 else f"file {name}"
            rooms.setdefault(f"room {names[name]}" if name in names else own, []).append(path)
        self.rooms = [rooms[room] for room in sorted(rooms)]
        self.missing = tuple(sorted(set(names) - {path.as_posix() for path in paths}))
        self._cache = RecordingCache(
            self.folder,
            len(paths),
            sample_rate=sample_rate,
            cache_bytes=cache_bytes,
            max_broken=max_broken,
            silent_peak=0.0,
            channel=0,
        )

    @property
    def rejected(self) -> dict[str, str]:
        return self._cache.rejected

    def read(self, path: str | Path, max_samples: int | None = None) -> np.ndarray:
        """Channel 0 of a response as float32 [L] of unit energy (the sum of its squares is 1).

        L is at most `max_seconds`, or `max_samples` where given. Cut first, then scaled.

        Raises:
            RecordingError: the file is broken, empty, non-finite, or zero up to the cut; it is then in
                `rejected`.
            DataError: more than the share `max_broken` of the files is.
        """
        path = Path(path)
        limit = self.max_samples if max_samples is None else min(max_samples, self.max_samples)
        response = self._cache.read(path)[:limit]
        energy = float(np.square(response, dtype=np.float64).sum())
        if energy == 0.0:
            reason = f"{self.folder / path} is zero for its first {limit / self.sample_rate:g} s; remove it."
            self._cache.reject(path, reason)
            raise RecordingError(reason)
        return response * np.float32(1.0 / np.sqrt(energy))

    def preload(self) -> None:
        """Read everything now (as far as the cache goes), so that forked workers share it."""
        self._cache.preload([path for room in self.rooms for path in room])

    def describe(self) -> str:
        """One line for people: rooms, responses, what is rejected."""
        count = sum(map(len, self.rooms))
        missing = f", {len(self.missing)} of rirs.tsv missing" if self.missing else ""
        unusable = f", {len(self.rejected)} unusable: {', '.join(sorted(self.rejected))}" if self.rejected else ""
        return f"RIRs {self.folder}: {count} responses of {len(self.rooms)} rooms{missing}{unusable}"


def _read_rooms(table: Path) -> dict[str, str]:
    """Room by filename."""
    lines = table.read_text(encoding="utf-8-sig").splitlines()
    header = lines[0].split("\t") if lines else []
    if "filename" not in header or "room" not in header:
        raise DataError(f"{table}:1 must name the tab-separated columns filename and room, got {header}.")
    filename, room = header.index("filename"), header.index("room")
    rooms = {}
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        if not line.strip():
            continue
        if len(fields) <= max(filename, room):
            raise DataError(f"{table}:{number} has no filename or no room; correct the row.")
        rooms[fields[filename].strip()] = fields[room].strip()
    return rooms
