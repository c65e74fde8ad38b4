"""The classes of a data set."""

from __future__ import annotations

import csv
from contextlib import suppress
from pathlib import Path

from task_aware.base.errors import DataError
from task_aware.data.desed import label_columns, read_table, split_paths
from task_aware.data.labels import split_labels
from task_aware.data.soundbank import list_soundbank


def classes_of(root: Path, *, needed: bool = True) -> tuple[str, ...]:
    """The classes of a folder in DESED's layout: those of its soundbank and those that its tables name, sorted.

    A table that cannot be read has none here; whoever reads it says what is wrong.

    Raises DataError if there are none, if they are `needed`.
    """
    found: set[str] = set()
    with suppress(DataError):
        found |= list_soundbank(root).foreground.keys()
    for name, column in label_columns().items():
        with suppress(DataError, csv.Error):
            for _, (field,) in read_table(split_paths(root, name)[0], (column,)):
                found.update(split_labels(field) if column == "event_labels" else [field])
    found.discard("")
    if needed and not found:
        raise DataError(
            f"{root} has no classes: put recordings into audio/train/soundbank/foreground/CLASS, or bring a collection "
            "with `task-aware import_clips`"
        )
    return tuple(sorted(found))
