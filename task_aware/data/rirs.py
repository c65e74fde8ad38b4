"""Room impulse responses, grouped by room."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from task_aware.base.errors import DataError
from task_aware.data.audio import find_audio
from task_aware.data.recordings import Recording, Recordings


class RirFiles(NamedTuple):
    """Room impulse responses, unopened: paths relative to `folder` by room, and the files of rirs.tsv that lack."""

    folder: Path
    rooms: dict[str, list[Path]]
    missing: tuple[str, ...]


def list_rirs(root: str | Path, split: str = "train") -> RirFiles:
    """Finds the responses by room, in the layouts of `RirBank`. Raises DataError where there are none."""
    folder = Path(root)
    for below in ("rir_data", split):
        if (folder / below).is_dir():
            folder = folder / below
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; room impulse responses are wanted there.")
    paths = find_audio(folder, folder)
    if not paths:
        raise DataError(f"{folder} has no .wav, .flac or .ogg file; room impulse responses are wanted there.")
    table = folder / "rirs.tsv"
    names = _read_rooms(table) if table.is_file() else {}
    rooms: dict[str, list[Path]] = {}
    for path in paths:
        name = path.as_posix()
        own = f"folder {path.parent.as_posix()}" if len(path.parts) > 1 else f"file {name}"
        rooms.setdefault(f"room {names[name]}" if name in names else own, []).append(path)
    return RirFiles(folder, rooms, tuple(sorted(set(names) - {path.as_posix() for path in paths})))


class RirBank:
    """Room impulse responses (RIRs) by room: channel 0, cut and decoded once (`Recordings`).

    Three layouts are understood, each also one folder above (`rir_data/`, and in it `split`):

    - FUSS: every folder with recordings (`rirs_*/`) is a room;
    - a flat folder with `rirs.tsv`, whose columns `filename` and `room` say which recordings share a room;
    - a flat folder without it: every recording is a room of its own.

    Attributes:
        rooms: the usable paths of each room, relative to `folder`, in an order of names alone.
        missing: filenames of rirs.tsv that are not in the folder.
        rejected: unusable files, with the reason; among them those that are zero up to the cut.

    Args:
        max_seconds: responses are cut there.
        split: the part of FUSS to take.

    Raises:
        DataError: no such folder, no usable recordings in it, more than the share `max_broken` unusable, a rirs.tsv
            that cannot be read, or no cache for the decoded responses.
    """

    def __init__(
        self,
        root: str | Path,
        max_seconds: float = 0.5,
        *,
        split: str = "train",
        sample_rate: int = 16000,
        max_broken: float = 0.1,
    ) -> None:
        if not max_seconds > 0:
            raise ValueError(f"max_seconds must be above 0, got {max_seconds}.")
        self.folder, rooms, self.missing = list_rirs(root, split)
        self.sample_rate = sample_rate
        self.max_samples = max(1, round(max_seconds * sample_rate))
        self._recordings = Recordings(
            self.folder,
            [path for room in rooms.values() for path in room],
            sample_rate=sample_rate,
            max_broken=max_broken,
            silent_peak=0.0,
            channel=0,
            max_samples=self.max_samples,
        )
        usable = (self._recordings.usable(rooms[room]) for room in sorted(rooms))
        self.rooms = [room for room in usable if room]
        if not self.rooms:
            raise DataError(f"{self.folder} has no usable room impulse response; replace those that were reported.")

    @property
    def rejected(self) -> dict[str, str]:
        return self._recordings.rejected

    def read(self, path: Path) -> Recording:
        """A response of at most `max_seconds`; times `1 / sqrt(frames.energies.sum())` it has unit energy."""
        return self._recordings.read(path)

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
