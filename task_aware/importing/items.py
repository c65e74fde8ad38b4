"""What every reader of a collection returns: rows of labels, the recordings that they name, and what was wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from task_aware.base.errors import DataError
from task_aware.base.files import LONGEST_NAME
from task_aware.data.finding import AUDIO_SUFFIXES, walk
from task_aware.data.labels import Event, safe_name

#: Recordings that are looked for; those that libsndfile cannot decode are named as errors when they are opened.
SOUNDS = (*AUDIO_SUFFIXES, ".mp3", ".opus", ".aiff", ".aif", ".au", ".caf", ".w64", ".m4a", ".aac", ".wma")

# AudioSet's clips: the video, and the second at which the clip begins (or the millisecond, without a decimal point)
_VIDEO = re.compile(r"^Y?([\w-]{11})_(\d+(?:\.\d+)?)(?:_|$)")


@dataclass(frozen=True)
class Row:
    """A row of a table, or a label of an annotation file.

    Attributes:
        where: file and line, for messages.
        file: the recording, as the row names it.
        labels: the classes.
        times: onset and offset in seconds; None if the labels are of the whole clip.
        empty: whether the row says that nothing happens in the recording, by a name without times and label.
        group: what clips have in common that are cuts of one recording; "" if the table does not say.
        fold: the part of a split; "" if the table does not say.
    """

    where: str
    file: str
    labels: tuple[str, ...]
    times: tuple[float, float] | None = None
    empty: bool = False
    group: str = ""
    fold: str = ""


@dataclass(frozen=True)
class Item:
    """A recording with its labels: strong ones in `events`, or those of the whole clip in `labels`."""

    path: Path
    name: str
    labels: tuple[str, ...] = ()
    events: tuple[Event, ...] | None = None
    group: str = ""
    fold: str = ""


@dataclass
class Problems:
    """What could not be used: (file, line, error), as `errors.tsv` has it."""

    found: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, where: str | Path, error: object) -> None:
        """Adds an error at `FILE:LINE`, or in a file as a whole."""
        file, _, line = str(where).rpartition(":")
        self.found.append((file, line, str(error)) if file and line.isdigit() else (str(where), "", str(error)))


class Sounds:
    """The recordings below a folder, by all the names under which tables know them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = sorted(
            (path.relative_to(folder) for path in walk(folder) if path.suffix.lower() in SOUNDS),
            key=lambda path: path.as_posix(),
        )
        self._named: dict[str, list[Path]] = {}
        for path in self.paths:
            names = {path.as_posix(), path.with_suffix("").as_posix(), path.name, path.stem, _video(path.stem)}
            for name in names - {""}:
                self._named.setdefault(name, []).append(path)

    def find(self, name: str) -> Path:
        """The recording that a table calls `name`: by its path, by its name alone, with or without a suffix.

        Raises DataError if there is none, or more than one.
        """
        wanted = PurePosixPath(name.replace("\\", "/"))
        without = wanted.with_suffix("") if wanted.suffix.lower() in SOUNDS else wanted
        for form in (wanted.as_posix(), without.as_posix(), wanted.name, without.name, _video(without.name)):
            found = self._named.get(form, ())
            if len(found) > 1:
                raise DataError(f"{name} may be {found[0]} or {found[1]} in {self.folder}; give the path in the table")
            if found:
                return found[0]
        raise DataError(f"{name} is not among the recordings in {self.folder}; add it, or remove the row")


def _video(stem: str) -> str:
    found = _VIDEO.match(stem)
    if not found:
        return ""
    second = float(found[2])
    return f"{found[1]} {second / 1000 if '.' not in found[2] and second >= 1000 else second:g}"


def collect(rows: Iterable[Row], sounds: Sounds, problems: Problems) -> list[Item]:
    """Joins the rows of each recording. Rows that cannot be used are named in `problems`."""
    items: dict[Path, list[Row]] = {}
    for row in rows:
        try:
            _check(row)
            items.setdefault(sounds.find(row.file), []).append(row)
        except DataError as error:
            problems.add(row.where, error)
    return [_join(path, of_path, sounds.folder, problems) for path, of_path in items.items()]


def _check(row: Row) -> None:
    if not row.file:
        raise DataError("the row names no recording; add its name, or remove the row")
    if row.empty:
        return
    if not any(row.labels):
        raise DataError(f"the row has no label for {row.file}; add it, or remove the row")
    long = [label for label in row.labels if len(safe_name(label).encode(errors="replace")) > LONGEST_NAME]
    if long:
        raise DataError(
            f"the label {long[0][:30]}... of {row.file} is too long to be the name of a folder; shorten it, or remove "
            "the row"
        )
    if row.times is not None and not 0 <= row.times[0] < row.times[1] < float("inf"):
        raise DataError(
            f"the event of {row.labels[0]} lasts from {row.times[0]:g} s to {row.times[1]:g} s; the onset must not be "
            "negative and must come before the offset"
        )


def _join(path: Path, rows: list[Row], folder: Path, problems: Problems) -> Item:
    events: list[Event] = []
    labels: dict[str, None] = {}
    timed = any(row.times or row.empty for row in rows)
    for row in rows:
        if row.empty:
            continue
        if row.times is None and timed:
            problems.add(row.where, f"the label {row.labels[0]} of {row.file} has no times, but others have; add them")
        elif row.times is not None:
            events += [event for label in row.labels if (event := Event(*row.times, label)) not in events]
        else:
            labels.update(dict.fromkeys(row.labels))
    first = rows[0]
    for row in rows[1:]:
        if (row.group, row.fold) != (first.group, first.fold):
            problems.add(
                row.where, f"{row.file} has another group or fold than in {first.where}, which is the one used"
            )
    strong = tuple(sorted(events, key=lambda event: (event.onset, event.label))) if timed else None
    return Item(folder / path, path.as_posix(), tuple(labels), strong, first.group, first.fold)
