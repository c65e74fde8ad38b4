"""Reads text files of events beside their recordings: Audacity, Scaper, DCASE, and Raven's selection tables.

Audacity, Scaper and DCASE write a line for each event and often no header: onset, offset and label, or first the name
of the recording, and of the scene. Whatever does not fit is named instead of being left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from task_aware.base.errors import DataError
from task_aware.importing.items import Problems, Row
from task_aware.importing.options import Columns
from task_aware.importing.tables import read_table, read_text

_NUMBER = re.compile(r"^[-+]?\d+([.,]\d+)?([eE][-+]?\d+)?$")

_RAVEN_LABELS = (
    "annotation",
    "species",
    "common name",
    "label",
    "class",
    "call",
    "type",
    "event",
    "sound",
    "tag",
    "name",
)


def read_text_file(path: Path, audio: str, columns: Columns, problems: Problems) -> Iterator[Row]:
    """Yields the events of a text file; `audio` is the recording that it is of, if it does not name one itself."""
    text = read_text(path)
    header = text.partition("\n")[0].strip().split("\t")
    if "Begin Time (s)" in header:
        yield from _raven(path, text, audio, columns, problems)
    elif {"onset", "event_label"} <= {name.strip().lower() for name in header}:
        yield from read_table(path, columns)
    else:
        yield from _lines(path, text, audio, problems)


def _lines(path: Path, text: str, audio: str, problems: Problems) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith(
            "\\"
        ):  # Audacity writes the frequencies of a label on a line of their own
            continue
        where = f"{path}:{number}"
        fields = [field.strip() for field in (line.split("\t") if "\t" in line else line.split(","))]
        numeric = [bool(_NUMBER.match(field)) for field in fields]
        # [onset, offset, label], after the recording, or after recording and scene
        first = next((k for k in range(min(3, len(fields) - 1)) if numeric[k] and numeric[k + 1]), None)
        if first is None or any(numeric[:first]):
            problems.add(where, f"{line.strip()!r} is no event; expected onset, offset and label, separated by tabs")
            continue
        onset, offset = (float(field.replace(",", ".")) for field in fields[first : first + 2])
        label = fields[first + 2] if len(fields) > first + 2 else ""
        yield Row(where, fields[0] if first else audio, (label,) if label else (), (onset, offset))


def _raven(path: Path, text: str, audio: str, columns: Columns, problems: Problems) -> Iterator[Row]:
    """A selection is in the table once for each view, with the same number, and counts once."""
    lines = text.splitlines()
    header = [name.strip() for name in lines[0].split("\t")]
    label_column = columns.label or next(
        (name for usual in _RAVEN_LABELS for name in header if name.lower() == usual), None
    )
    if label_column not in header:
        raise DataError(
            f"{path}:1 has no column of labels; it has {', '.join(header)}; name one of them with --label-column"
        )
    seen: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = dict(zip(header, (cell.strip() for cell in line.split("\t")), strict=False))
        where, selection, view = f"{path}:{number}", cells.get("Selection", ""), cells.get("View", "")
        label = cells.get(label_column, "")
        if selection and selection in seen and seen[selection][0] != view:
            if label and not seen[selection][1]:
                problems.add(where, f"selection {selection} has its label in one view only; label it in the first view")
            continue
        if selection:
            seen[selection] = (view, label)
        try:
            begin, end = float(cells["Begin Time (s)"]), float(cells["End Time (s)"])
            if cells.get("File Offset (s)"):  # times of several files one after the other
                begin, end = float(cells["File Offset (s)"]), float(cells["File Offset (s)"]) + end - begin
        except (KeyError, ValueError):
            problems.add(where, "Begin Time (s) and End Time (s) must be numbers of seconds; correct the row")
            continue
        file = (cells.get("Begin File") or cells.get("Begin Path") or audio).replace("\\", "/")
        if Path(file).name == Path(audio).name:
            file = audio  # where other folders have a recording of this name
        yield Row(where, file, (label,) if label else (), (begin, end))
