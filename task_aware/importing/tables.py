"""Reads tables that name recordings: classes, folds and groups, or events with times; columns by their usual names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from task_aware.base.errors import DataError
from task_aware.base.tables import split_rows
from task_aware.data.labels import split_labels
from task_aware.importing.items import Row
from task_aware.importing.options import Columns

#: Usual names of columns, in lower case, the most telling first.
USUAL = {
    "filename": ("filename", "file_name", "slice_file_name", "audio_filename", "audiofilename", "fname", "filepath",
                 "file_path", "path", "file", "segment_id", "audio", "clip", "recording"),
    "label": ("event_label", "event_labels", "label", "labels", "category", "class", "class_name", "classname",
              "species", "tag", "tags", "annotation", "primary_label"),
    "group": ("group", "src_file", "fsid", "freesound_id", "source_file", "source_id", "recording_id", "session",
              "speaker", "uploader"),
    "fold": ("fold", "split", "subset"),
    "onset": ("onset", "start_time_seconds", "event_onset", "onset_s"),
    "offset": ("offset", "end_time_seconds", "event_offset", "offset_s"),
}  # fmt: skip

#: Columns of several labels, separated by commas; in others a comma is part of the name.
SEVERAL = {"labels", "tags", "event_labels"}


def read_table(path: Path, columns: Columns) -> Iterator[Row]:
    """Yields the rows of a table, separated by commas, tabs or semicolons, whose first line names the columns.

    Raises DataError if the columns are not found, or a row cannot be split.
    """
    header, rows = _split(path)
    where = find_columns(path, header, columns)
    names = _display_names(path.parent)
    several = header[where["label"]].strip().lower() in SEVERAL

    def cell(row: Sequence[str], name: str) -> str:
        return row[where[name]].strip() if name in where and where[name] < len(row) else ""

    for line, row in rows:
        text = cell(row, "label")
        labels = tuple(split_labels(text)) if several else (text,) if text else ()
        labels = labels[:1] if columns.first_label else labels
        onset, offset = cell(row, "onset"), cell(row, "offset")
        timed = "onset" in where
        yield Row(
            f"{path}:{line}",
            cell(row, "filename"),
            tuple(names.get(label, label) for label in labels),
            _times(onset, offset) if timed and (onset or offset or text) else None,
            timed and not (onset or offset or text),
            cell(row, "group"),
            cell(row, "fold"),
        )


def find_columns(path: Path, header: Sequence[str], columns: Columns) -> dict[str, int]:
    """Where the columns are: filename and label always; group, fold, onset and offset if there are such."""
    lower = [name.strip().lower() for name in header]
    found = {}
    for name, usual in USUAL.items():
        given = getattr(columns, name, None)
        if given is not None and given not in header:
            raise DataError(f"{path}:1 has no column {given!r}; it has {', '.join(header)}")
        index = header.index(given) if given is not None else next((lower.index(x) for x in usual if x in lower), None)
        if index is not None:
            found[name] = index
    missing = [name for name in ("filename", "label") if name not in found]
    if missing:
        raise DataError(
            f"{path}:1 has no column of {' and '.join(missing)} with a usual name; it has {', '.join(header)}; name it "
            f"with --{missing[0]}-column"
        )
    if ("onset" in found) != ("offset" in found):
        raise DataError(f"{path}:1 has only one of the columns onset and offset; add the other")
    return found


def looks_like_one(path: Path) -> bool:
    """Whether a file is a table of recordings by its columns' usual names."""
    try:
        find_columns(path, _split(path)[0], Columns())
    except DataError:
        return False
    return True


def _split(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the other rows with the lines on which they begin."""
    text = read_text(path)
    first = text.partition("\n")[0]
    delimiter = "\t" if "\t" in first else max(",;", key=first.count)
    rows = list(split_rows(text, path, delimiter))
    if not rows:
        raise DataError(f"{path} is empty; give a table whose first line names the columns")
    return rows[0][1], rows[1:]


def read_text(path: Path) -> str:
    """The text of a file in UTF-8 or, with a mark at its beginning, UTF-16. Raises DataError if it is neither."""
    try:
        content = path.read_bytes()
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the path") from error


def _times(onset: str, offset: str) -> tuple[float, float]:
    """Onset and offset; not finite, which whoever checks the row refuses, if they are no numbers."""
    try:
        return float(onset), float(offset)
    except ValueError:
        return float("nan"), float("nan")


def _display_names(folder: Path) -> dict[str, str]:
    """AudioSet's names of its identifiers, where one of its tables of them is in the folder."""
    for name, first in (("mid_to_display_name.tsv", 0), ("class_labels_indices.csv", 1)):
        if (folder / name).is_file():
            header, rows = _split(folder / name)
            every = [header, *(row for _, row in rows)] if first == 0 else [row for _, row in rows]
            return {row[first].strip(): row[first + 1].strip() for row in every if len(row) > first + 1}
    return {}
