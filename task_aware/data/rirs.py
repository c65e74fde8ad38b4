"""Room impulse responses, grouped by room."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from task_aware.base.errors import DataError, RecordingError
from task_aware.base.tables import read_rows
from task_aware.data import sofa
from task_aware.data.finding import RESPONSE_SUFFIXES, find_audio
from task_aware.data.recordings import Recording, Recordings


class RirFiles(NamedTuple):
    """Paths of room impulse responses by room, relative to `folder`, and the files of rirs.tsv that are missing."""

    folder: Path
    rooms: dict[str, list[Path]]
    missing: tuple[str, ...]


def list_rirs(
    root: str | Path,
    split: str = "train",
    *,
    receiver: int | None = None,
    measurements: Sequence[int] | None = None,
) -> RirFiles:
    """Finds the responses by room, in the layouts of `RirBank`. Raises DataError if there are none."""
    folder = Path(root)
    for below in ("rir_data", split):
        if (folder / below).is_dir():
            folder = folder / below
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; expected one with room impulse responses.")
    paths = find_audio(folder, folder, RESPONSE_SUFFIXES)
    if not paths:
        raise DataError(f"{folder} has no .wav, .flac, .ogg or .sofa file; expected room impulse responses.")
    table = folder / "rirs.tsv"
    names = _read_rooms(table) if table.is_file() else {}
    rooms: dict[str, list[Path]] = {}
    for path in paths:
        name = path.as_posix()
        in_folder = len(path.parts) > 1 and not sofa.is_sofa(path)
        own = f"folder {path.parent.as_posix()}" if in_folder else f"file {name}"
        room = f"room {names[name]}" if name in names else own
        if not sofa.is_sofa(path):
            rooms.setdefault(room, []).append(path)
            continue
        try:
            found = sofa.list_responses(folder / path, path, receiver=receiver, measurements=measurements)
        except RecordingError:  # reported when it is decoded
            found = {"broken": [path]}
        for at, responses in found.items():
            rooms.setdefault(f"{room}, {at}", []).extend(responses)
    return RirFiles(folder, rooms, tuple(sorted(set(names) - {path.as_posix() for path in paths})))


class RirBank:
    """Room impulse responses (RIRs) by room: channel 0 of a file, aligned, cut, decoded once and cached (`Recordings`).

    Each begins 1 ms before its direct sound, `levels.direct_sound`. What comes before, such as the way from the source,
    the latency of a measurement, or the delay of a simulator's filters, would put every sound behind its label.

    Three layouts are supported; `root` may also be a folder above, if it holds `rir_data/` or `split`:

    - FUSS: every folder with recordings (`rirs_*/`) is a room;
    - a flat folder with `rirs.tsv`, whose columns `filename` and `room` group the recordings by room;
    - a flat folder without it: every recording is a room of its own.

    A SOFA file, anywhere in them, is a room of its own unless rirs.tsv names another. Each of its measurements is a
    response; each of its receivers hears them in a room of its own, so that a mixture is what one of them got.

    Attributes:
        rooms: the usable paths of each room, relative to `folder`, sorted by name.
        missing: filenames of rirs.tsv that are not in the folder.
        rejected: unusable files with the reason.

    Args:
        root: the folder.
        max_seconds: length at which aligned responses are cut, seconds.
        split: the split of FUSS to use.
        sample_rate: sample rate to decode to, Hz.
        max_broken: share of the recordings that may be unusable.
        receiver, measurements: those of SOFA files to take, counted from 0; default: all.

    Raises:
        DataError: the folder is missing or has no usable recordings, too many are unusable, rirs.tsv cannot be read, or
            the cache cannot be written.
    """

    def __init__(
        self,
        root: str | Path,
        max_seconds: float = 0.5,
        *,
        split: str = "train",
        sample_rate: int = 16000,
        max_broken: float = 0.1,
        receiver: int | None = None,
        measurements: Sequence[int] | None = None,
    ) -> None:
        if not max_seconds > 0:
            raise ValueError(f"max_seconds must be above 0, got {max_seconds}.")
        self.folder, rooms, self.missing = list_rirs(root, split, receiver=receiver, measurements=measurements)
        self.sample_rate = sample_rate
        self.max_samples = max(1, round(max_seconds * sample_rate))
        self._recordings = Recordings(
            self.folder,
            [path for room in rooms.values() for path in room],
            sample_rate=sample_rate,
            max_broken=max_broken,
            silent_peak=0.0,
            channel=0,
            responses=True,
            max_samples=self.max_samples,
        )
        sofa.forget()
        usable = (self._recordings.usable(rooms[room]) for room in sorted(rooms))
        self.rooms = [room for room in usable if room]
        if not self.rooms:
            raise DataError(f"{self.folder} has no usable room impulse response; replace the reported files.")

    @property
    def rejected(self) -> dict[str, str]:
        return self._recordings.rejected

    def read(self, path: Path) -> Recording:
        """Reads a response of at most `max_seconds`. Scaled by `1 / sqrt(frames.energies.sum())`, its energy is 1."""
        return self._recordings.read(path)

    def describe(self) -> str:
        """Summarises rooms, responses and rejected files in one line."""
        count = sum(map(len, self.rooms))
        missing = f", {len(self.missing)} of rirs.tsv missing" if self.missing else ""
        unusable = f", {len(self.rejected)} unusable: {', '.join(sorted(self.rejected))}" if self.rejected else ""
        return f"RIRs {self.folder}: {count} responses of {len(self.rooms)} rooms{missing}{unusable}"


def _read_rooms(table: Path) -> dict[str, str]:
    """Reads rirs.tsv as a room for each filename."""
    rows = list(read_rows(table))
    header = [field.strip() for field in rows[0][1]] if rows else []
    if "filename" not in header or "room" not in header:
        raise DataError(f"{table}:1 must hold the tab-separated column names filename and room, got {header}.")
    filename, room = header.index("filename"), header.index("room")
    rooms = {}
    for number, fields in rows[1:]:
        if len(fields) <= max(filename, room):
            raise DataError(f"{table}:{number} lacks a filename or a room; correct the row.")
        rooms[fields[filename].strip()] = fields[room].strip()
    return rooms
