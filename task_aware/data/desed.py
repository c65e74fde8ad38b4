"""Reads and writes DESED's layout: tab-separated tables in `metadata/` that mirror the folders of `audio/`."""

from __future__ import annotations

import csv
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from task_aware.base.errors import DataError, RecordingError
from task_aware.base.tables import read_rows, write_table
from task_aware.data.audio import audio_seconds, read_audio
from task_aware.data.finding import AUDIO_SUFFIXES, find_audio
from task_aware.data.labels import Event, Events, listed, split_labels, written_times

# name: table below metadata/, folder below audio/, columns
_LAYOUT: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "weak": ("train/weak.tsv", "train/weak", ("filename", "event_labels")),
    "unlabelled": ("train/unlabel_in_domain.tsv", "train/unlabel_in_domain", ("filename",)),
    "synthetic": (
        "train/synthetic20/soundscapes.tsv",
        "train/synthetic20/soundscapes",
        ("filename", "onset", "offset", "event_label"),
    ),
    "validation": ("validation/validation.tsv", "validation", ("filename", "onset", "offset", "event_label")),
    "public": ("eval/public.tsv", "eval/public", ("filename", "onset", "offset", "event_label")),
}
SPLITS: tuple[str, ...] = tuple(_LAYOUT)

#: Share of a table's clips that may lack audio: some of DESED's clips are no longer available for download.
MAX_MISSING = 0.5

# Some of DESED's labels end at 10.115 s in clips of 10 s.
_LATE_OFFSET_SECONDS = 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """A recording with its labels.

    `events` holds strong labels and `labels` weak ones; both are None for an unlabelled clip. `filename` is the name
    in the table, by which detections are scored; the file at `path` may have another suffix. `channel` is the channel
    to read, counted from 0; None reads the mean.
    """

    path: Path
    events: tuple[Event, ...] | None
    labels: tuple[str, ...] | None
    filename: str = ""
    channel: int | None = None

    def read(self, sample_rate: int) -> np.ndarray:
        """Reads the recording as `read_audio` does, float32 [N] at `sample_rate`."""
        return read_audio(self.path, sample_rate, channel=self.channel)


@dataclass(frozen=True)
class Split:
    """The clips of one table that have audio, in the table's order, and the names of those that have none."""

    name: str
    clips: tuple[Clip, ...]
    missing: tuple[str, ...]
    metadata: Path

    @property
    def reference(self) -> dict[str, tuple[Event, ...]]:
        """The events of each strongly labelled clip by filename, in the form that the metrics expect."""
        return {clip.filename: clip.events for clip in self.clips if clip.events is not None}

    @property
    def busiest(self) -> Clip:
        """The clip with the most classes, in which separation shows best."""
        return max(self.clips, key=lambda clip: (len({event.label for event in clip.events or ()}), clip.filename))


def split_paths(root: str | Path, name: str) -> tuple[Path, Path]:
    """Paths of a split's table and audio folder, whether or not they exist."""
    if name not in _LAYOUT:
        raise ValueError(f"name must be one of {', '.join(SPLITS)}, got {name!r}.")
    table, folder, _ = _LAYOUT[name]
    return Path(root) / "metadata" / table, Path(root) / "audio" / folder


def label_columns() -> dict[str, str]:
    """The column of the labels in the table of each split that has labels."""
    return {name: columns[-1] for name, (_, _, columns) in _LAYOUT.items() if len(columns) > 1}


def read_split(
    root: str | Path,
    name: str,
    labels: Sequence[str] | None = None,
    *,
    max_missing: float = MAX_MISSING,
    clip_seconds: float = 10.0,
    channel: int | None = None,
    problems: list[str] | None = None,
) -> Split:
    """Reads one split: "weak", "unlabelled", "synthetic", "validation" or "public".

    The audio may be .wav, .flac or .ogg, whatever suffix the table gives, and may lie in subfolders that the table
    names. A row with only a filename is a clip without events. Offsets up to 0.5 s past the end of the clip
    (`clip_seconds`, or the recording's length if it is longer) are kept as written and cut when they are encoded.

    Args:
        root: folder in DESED's layout.
        name: the split.
        labels: the classes; None takes whatever labels the table has.
        max_missing: share of the clips that may lack audio.
        clip_seconds: nominal length of a clip.
        channel: the channel of the clips to read, counted from 0; None reads the mean.
        problems: if given, rows that cannot be used are skipped and described in this list instead of raising, and
            missing audio is not logged.

    Raises:
        ValueError: the split name is unknown.
        DataError: the table or audio folder is missing, a column is missing, a label is unknown, a time is invalid,
            the table has no rows, or too many clips have no audio.
    """
    metadata, folder = split_paths(root, name)
    columns = _LAYOUT[name][2]
    rows = read_table(metadata, columns)
    if not folder.is_dir():
        raise DataError(f"{folder}, the audio folder of {metadata}, is not a folder; check the data folder.")
    audio = _AudioIndex(folder)
    paths: dict[str, Path | None] = {}
    spellings: dict[Path, str] = {}
    events: dict[str, list[Event]] = {}
    weak: dict[str, list[str]] = {}
    for line, row in rows:
        filename = row[0]
        where = f"{metadata}:{line}"
        try:
            if not filename:
                raise DataError(f"{where} has no filename; correct or remove the row.")
            if filename not in paths:
                path = audio.find(filename)
                if path is not None and spellings.setdefault(path, filename) != filename:
                    raise DataError(
                        f"{where} names the recording {path} as {filename}, but a row above as {spellings[path]}; "
                        "use one name, or it would count twice."
                    )
                paths[filename] = path
            if len(columns) == 4:
                found_events = events.setdefault(filename, [])
                event = _parse_event(row, where, labels)
                path = paths[filename]
                if event is not None and path is not None:  # nobody knows how long a missing clip is
                    _check_end(event, path, where, clip_seconds)
                    found_events.append(event)
            elif len(columns) == 2:
                names = weak.setdefault(filename, [])
                names += [label for label in _parse_labels(row[1], where, labels) if label not in names]
        except DataError as error:
            if problems is None:
                raise
            problems.append(str(error))
    order = None if labels is None else list(labels).index
    clips = []
    missing = []
    for filename, path in paths.items():
        if path is None:
            missing.append(filename)
            continue
        clip_events = tuple(events[filename]) if filename in events else None
        clip_labels = tuple(sorted(weak[filename], key=order)) if filename in weak else None
        clips.append(Clip(path, clip_events, clip_labels, filename, channel))
    if not paths:
        raise DataError(f"{metadata} has no row that can be used; correct its rows.")
    if len(missing) > max_missing * len(paths) or not clips:
        raise DataError(
            f"{len(missing)} of the {len(paths)} clips of {metadata} have no audio in {folder} (such as "
            f"{missing[0]}), but at most {max_missing:.0%} may be missing; download the rest or check the folder."
        )
    if missing and problems is None:
        _log.warning("Skipped %d of the %d clips of %s, which have no audio.", len(missing), len(paths), metadata)
    return Split(name, tuple(clips), tuple(missing), metadata)


def read_events(path: str | Path, labels: Sequence[str] | None = None) -> dict[str, tuple[Event, ...]]:
    """Reads the events of any table with the columns filename, onset, offset and event_label, by filename.

    Other labels than `labels` are an error, if they are given.
    """
    path = Path(path)
    events: dict[str, list[Event]] = {}
    for line, row in read_table(path, ("filename", "onset", "offset", "event_label"), may_be_empty=True):
        found = events.setdefault(row[0], [])
        event = _parse_event(row, f"{path}:{line}", labels)
        if event is not None:
            found.append(event)
    return {filename: tuple(found) for filename, found in events.items()}


class _AudioIndex:
    """Recordings below a folder by name, whatever their suffix; walks the folder once instead of once per clip."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        paths = find_audio(folder, folder)
        self._exact = {path.as_posix(): path for path in paths}
        self._stem = {path.with_suffix("").as_posix(): path for path in reversed(paths)}

    def find(self, filename: str) -> Path | None:
        name = PurePosixPath(filename.replace("\\", "/")).as_posix()
        suffix = PurePosixPath(name).suffix
        # names such as Y80.000_90.000 only seem to have a suffix
        stem = name[: -len(suffix)] if suffix.lower() in AUDIO_SUFFIXES else name
        found = self._exact.get(name) or self._stem.get(stem)
        return self._folder / found if found is not None else None


def read_table(path: Path, columns: Sequence[str], *, may_be_empty: bool = False) -> list[tuple[int, list[str]]]:
    """(line number, fields of the requested columns) of each row."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; check the data folder, which must hold audio/ and metadata/.")
    table = list(read_rows(path))
    header = [field.strip() for field in table[0][1]] if table else []
    absent = [column for column in columns if column not in header]
    if absent:
        raise DataError(
            f"{path}:1 has no column {', '.join(absent)}; the first line must hold the tab-separated "
            f"names {', '.join(columns)}."
        )
    where = [header.index(column) for column in columns]
    rows = []
    for number, row in table[1:]:
        if len(row) > len(header):
            raise DataError(
                f"{path}:{number} has {len(row)} fields, but the header has {len(header)}; correct the row."
            )
        fields = [field.strip() for field in row] + [""] * (len(header) - len(row))
        rows.append((number, [fields[column] for column in where]))
    if not rows and not may_be_empty:
        raise DataError(f"{path} has a header but no rows; an empty split cannot be used.")
    return rows


def _parse_event(row: Sequence[str], where: str, labels: Sequence[str] | None) -> Event | None:
    _, onset_text, offset_text, label = row
    if not (onset_text or offset_text or label):
        return None
    try:
        onset, offset = float(onset_text), float(offset_text)
    except ValueError:
        onset = offset = math.nan
    if not (math.isfinite(onset) and math.isfinite(offset)):
        raise DataError(
            f"{where} has the onset {onset_text!r} and the offset {offset_text!r}; both must be numbers of seconds. "
            "In a clip without events, leave onset, offset and event_label empty."
        )
    if onset < 0 or onset >= offset:
        raise DataError(
            f"{where} has the onset {onset:g} s and the offset {offset:g} s; the onset must not be negative "
            "and must come before the offset."
        )
    _check_label(label, where, labels)
    return Event(onset, offset, label)


def _parse_labels(text: str, where: str, labels: Sequence[str] | None) -> list[str]:
    try:
        names = split_labels(text)
    except csv.Error as error:
        raise DataError(
            f"{where} has the labels {text!r}, which cannot be split ({error}); put a label that holds a comma or a "
            'quote into quotes, and double its own quotes ("").'
        ) from error
    for label in names:
        _check_label(label, where, labels)
    return names


def _check_label(label: str, where: str, labels: Sequence[str] | None) -> None:
    if labels is None:
        if not label:
            raise DataError(f"{where} has no label; name the class of the event, or remove the row.")
    elif label not in labels:
        raise DataError(f"{where} has the unknown label {label!r}; expected one of {listed(labels)}.")


def _check_end(event: Event, path: Path, where: str, clip_seconds: float) -> None:
    if event.offset <= clip_seconds + _LATE_OFFSET_SECONDS:
        return
    try:  # opening the file takes time, and most tables never get here
        length = max(clip_seconds, audio_seconds(path))
    except RecordingError:
        return  # nobody knows its length; whoever reads the recording says what is wrong with it
    if event.offset > length + _LATE_OFFSET_SECONDS:
        raise DataError(
            f"{where} has the offset {event.offset:g} s, but the clip ends at {length:g} s; correct the row "
            f"(offsets up to {_LATE_OFFSET_SECONDS:g} s past the end are accepted and cut)."
        )


def write_events(path: str | os.PathLike[str], events: Events) -> None:
    """Writes the events of each file as a DESED table: tab-separated filename, onset, offset, event_label.

    Times are as in `written_times`; a file without events gets one row with empty fields. The table is
    written completely or not at all.
    """
    rows = (
        (name, *row)
        for name, of_file in events.items()
        for row in [(*written_times(event), event.label) for event in of_file] or [("", "", "")]
    )
    write_table(path, ("filename", "onset", "offset", "event_label"), rows)
