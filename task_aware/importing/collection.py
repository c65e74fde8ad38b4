"""Finds out how a collection is labelled, and reads it: class folders, a table, or files beside the recordings."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from task_aware.base.errors import DataError
from task_aware.data.finding import walk
from task_aware.data.labels import label_of
from task_aware.importing.annotators import read_elan, read_jams, read_label_studio, read_textgrid
from task_aware.importing.items import Item, Problems, Row, Sounds, collect
from task_aware.importing.options import Columns
from task_aware.importing.tables import looks_like_one, read_table
from task_aware.importing.texts import read_text_file

_log = logging.getLogger(__name__)

#: Files of one recording's labels, beside it and named after it.
ANNOTATIONS = (".txt", ".textgrid", ".eaf", ".jams")
TABLES = (".csv", ".tsv", ".json")


def read_collection(source: Path, table: Path | None, columns: Columns, problems: Problems) -> list[Item]:
    """Reads the clips of a collection, with their labels.

    With a table, or with one in `source` (or in its folder meta or metadata) that has columns with usual names, the
    clips are those that the table names; otherwise, with annotation files beside the recordings, those; otherwise each
    folder in `source` is a class.

    Raises DataError if there are no recordings or no labels, or several tables to choose from.
    """
    if not source.is_dir():
        raise DataError(f"{source} is not a folder; give the folder of the recordings")
    sounds = Sounds(source)
    if not sounds.paths:
        raise DataError(f"{source} has no recordings; give the folder that holds them")
    table = table or _find_table(source)
    if table is not None:
        _log.info("labels: %s", table)
        read = read_label_studio(table, problems) if table.suffix.lower() == ".json" else read_table(table, columns)
        items = collect(read, sounds, problems)
    elif files := _beside(source, sounds):
        _log.info("labels: %s annotation files beside the recordings, such as %s", f"{len(files):,}", files[0][0])
        items = collect(_read_all(files, columns, problems), sounds, problems)
    else:
        items = list(_of_folders(source, sounds, problems))
    if not items:
        raise DataError(
            f"{source} has no recording with a usable label{': ' + problems.found[0][2] if problems.found else ''}"
        )
    return items


def _find_table(source: Path) -> Path | None:
    folders = [source, source / "meta", source / "metadata"]
    every = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    found = [path for path in every if path.suffix.lower() in (".csv", ".tsv") and looks_like_one(path)]
    if len(found) > 1:
        raise DataError(
            f"{source} has several tables ({', '.join(path.name for path in found)}); choose with --csv FILE"
        )
    return found[0] if found else None


def _beside(source: Path, sounds: Sounds) -> list[tuple[Path, str]]:
    """Annotation files with the name of the recording that each is of: `a.wav` has `a.txt` or `a.TABLE.txt`."""
    stems = {path.with_suffix("").as_posix(): path.as_posix() for path in sounds.paths}
    names = {path.stem: path.as_posix() for path in sounds.paths}
    found = []
    for path in sorted(walk(source)):
        if path.suffix.lower() not in ANNOTATIONS:
            continue
        below = path.relative_to(source)
        parts = below.name.split(".")
        for count in range(len(parts) - 1, 0, -1):
            stem = ".".join(parts[:count])
            if audio := stems.get(below.with_name(stem).as_posix()) or names.get(stem):
                found.append((path, audio))
                break
    return found


def _read_all(files: Iterable[tuple[Path, str]], columns: Columns, problems: Problems) -> Iterator[Row]:
    for path, audio in files:
        suffix = path.suffix.lower()
        try:
            if suffix == ".txt":
                yield from read_text_file(path, audio, columns, problems)
            else:
                read = {".textgrid": read_textgrid, ".eaf": read_elan, ".jams": read_jams}[suffix]
                yield from read(path, audio, problems)
        except DataError as error:
            problems.add(path, error)


def _of_folders(source: Path, sounds: Sounds, problems: Problems) -> Iterator[Item]:
    for path in sounds.paths:
        if len(path.parts) < 2:
            problems.add(source / path, "the recording is in no class folder; move it into the folder of its class")
        else:
            yield Item(source / path, path.as_posix(), (label_of(path.parts[0]),))
