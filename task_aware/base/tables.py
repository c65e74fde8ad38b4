"""Tab-separated tables, written and read by one rule, which is that of `csv` (and of pandas' `sep="\\t"`).

A field that holds a tab, a line break or a quote is put in quotes, with its own quotes doubled.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from task_aware.base.errors import DataError
from task_aware.base.files import replacing


def write_table(path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes a table, completely or not at all.

    A name of a file that is not UTF-8 is written with the bytes that cannot be text as `\\udc..`.
    """
    with (
        replacing(Path(path)) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        file.writelines("\t".join(map(_quoted, row)) + "\n" for row in chain([header], rows))


def _quoted(field: str) -> str:
    """As `csv.writer` does it, which in Python 3.11 leaves a carriage return without quotes."""
    return '"' + field.replace('"', '""') + '"' if any(sign in field for sign in '"\t\n\r') else field


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields each row of a table that is not empty, with the number of the line on which it begins.

    Raises DataError if the file is not UTF-8 text, or if quotes are not as `write_table` writes them.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from error
    yield from split_rows(text, path)


def split_rows(text: str, path: Path, delimiter: str = "\t") -> Iterator[tuple[int, list[str]]]:
    """Yields each row of a table's text as `read_rows` does; `path` is named in errors.

    Raises DataError if quotes are not as `write_table` writes them.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for row in reader:
            if any(field.strip() for field in row):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{line} cannot be split into fields ({error}); put a field that begins with a quote into quotes as "
            'a whole, and double its own quotes ("").'
        ) from error
