"""Finds the recordings that a command line names, and chooses the names of their results."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from task_aware.base.errors import DataError
from task_aware.base.tables import read_rows
from task_aware.data.finding import AUDIO_SUFFIXES, find_audio, walk

#: Suffixes that are searched for in folders; other formats that libsndfile reads must be named explicitly.
SUFFIXES = (*AUDIO_SUFFIXES, ".mp3")

#: Suffixes of files that list recordings.
LIST_SUFFIXES = (".txt", ".tsv")


@dataclass(frozen=True)
class Recording:
    """A recording to analyse.

    Attributes:
        path: the file, which may be missing or broken.
        name: its unique name in tables, a relative path with `/`.
        stem: name of its results, without their suffix: `name` without its own suffix if that is unique too.
    """

    path: Path
    name: str
    stem: str


def find_recordings(arguments: Sequence[str]) -> list[Recording]:
    """Finds the recordings that files, folders (searched recursively), patterns and lists name, sorted by name.

    A list is a .txt or .tsv file with one path per line, or a table whose first column is `filename`. Its paths are
    relative to the list's folder or, if there is no such file, to the working directory.

    Names are relative to the given folder or to the folder that a pattern begins with; the name of a file is its own.
    If two names would be equal, all are relative to the deepest folder that contains all recordings. A file that is
    named twice is one recording.

    Raises DataError if nothing is found, or if a list is not text.
    """
    named: dict[Path, str] = {}
    for argument in arguments:
        for path, name in _expand(argument):
            named.setdefault(Path(os.path.abspath(path)), name)
    if not named:
        raise DataError(
            f"there are no recordings ({', '.join(SUFFIXES)}) in {', '.join(map(str, arguments))}; check the paths"
        )
    if len(set(named.values())) < len(named):
        common = os.path.commonpath([path.parent for path in named])
        named = {path: path.relative_to(common).as_posix() for path in named}
    stems = Counter(_stem(name) for name in named.values())
    names = set(named.values())
    recordings = []
    for path, name in sorted(named.items(), key=lambda item: item[1]):
        stem = _stem(name)
        recordings.append(Recording(path, name, stem if stems[stem] == 1 and stem not in names else name))
    return recordings


def shard(recordings: Sequence[Recording], part: str | None) -> list[Recording]:
    """Selects the recordings of part `i/n`, i from 1 to n; the parts are disjoint and the same on every machine.

    None selects all.
    """
    if part is None:
        return list(recordings)
    index, _, count = part.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ValueError(f"{part!r} is not a valid part; expected i/n with i from 1 to n, such as 1/4")
    return list(recordings[int(index) - 1 :: int(count)])


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else name


def _expand(argument: str) -> list[tuple[Path, str]]:
    """Paths and names of the recordings that one argument names."""
    path = Path(argument)
    if os.path.isdir(path):  # unlike `Path.is_dir`, no error for a name that is too long
        return [(path / file, file.as_posix()) for file in find_audio(path, path, SUFFIXES)]
    if glob.has_magic(argument) and not os.path.exists(path):
        base = Path(*path.parts[: _first(path, glob.has_magic)])
        return [(file, file.relative_to(base).as_posix()) for file in _matches(path) if os.path.isfile(file)]
    if path.suffix.lower() in LIST_SUFFIXES and os.path.isfile(path):
        return [_listed(entry, path.parent) for entry in _read_list(path)]
    return [(path, path.name)]


def _matches(pattern: Path) -> Iterable[Path]:
    """The paths that match a pattern; `**` enters what `walk` enters, as glob would follow links in circles."""
    depth = _first(pattern, lambda part: part == "**")
    for start in map(Path, glob.glob(str(Path(*pattern.parts[:depth])))):
        if depth == len(pattern.parts):
            yield start
        elif start.is_dir():
            below = pattern.parts[depth:]
            yield from (file for file in walk(start) if _fits(file.relative_to(start).parts, below))


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**" and _fits(parts, pattern[1:]):
        return True
    if not parts:
        return False
    rest = pattern if pattern[0] == "**" else pattern[1:]
    return (pattern[0] == "**" or fnmatch.fnmatch(parts[0], pattern[0])) and _fits(parts[1:], rest)


def _first(path: Path, wanted: Callable[[str], object]) -> int:
    """The position of the first part of that kind; the number of parts if there is none."""
    return next((index for index, part in enumerate(path.parts) if wanted(part)), len(path.parts))


def _read_list(path: Path) -> list[str]:
    entries = [entry for _, row in read_rows(path) if (entry := row[0].strip())]
    return entries[1:] if entries[:1] == ["filename"] else entries


def _listed(entry: str, folder: Path) -> tuple[Path, str]:
    path = folder / entry
    if not os.path.exists(path) and os.path.exists(entry):
        path = Path(entry)
    name = os.path.normpath(entry)
    inside = not os.path.isabs(name) and not name.startswith("..")
    return path, Path(name).as_posix() if inside else Path(name).name
