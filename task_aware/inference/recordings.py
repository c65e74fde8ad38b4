"""Which recordings a command line means, and what their results are called."""

from __future__ import annotations

import csv
import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from task_aware.base.errors import DataError
from task_aware.data.audio import AUDIO_SUFFIXES

#: What is looked for in folders; other formats of libsndfile are read where they are named.
SUFFIXES = (*AUDIO_SUFFIXES, ".mp3")

#: Lists of recordings.
LIST_SUFFIXES = (".txt", ".tsv")


@dataclass(frozen=True)
class Recording:
    """A recording to analyse.

    Attributes:
        path: the file; it may be missing or broken.
        name: its name in tables: relative, with `/`, unique.
        stem: its results' name without their suffix: `name` without its own where that is unique too.
    """

    path: Path
    name: str
    stem: str


def find_recordings(arguments: Sequence[str]) -> list[Recording]:
    """The recordings meant by files, folders (searched with all below), patterns and lists, sorted by name.

    A list is a .txt or .tsv file with a path a line, or a table whose first column is `filename`; its paths are
    relative to its own folder or, where nothing is there, to the working folder.

    Names are relative to the folder that was given or that the pattern begins with; of a file, its own name. Where
    two would be the same, all are relative to the deepest folder that holds all recordings. A file that is meant twice
    is one recording.

    Raises DataError where nothing is found, or a list is no text.
    """
    named: dict[Path, str] = {}
    for argument in arguments:
        for path, name in _expand(argument):
            named.setdefault(Path(os.path.abspath(path)), name)
    if not named:
        raise DataError(
            f"there is no recording ({', '.join(SUFFIXES)}) in {', '.join(map(str, arguments))}; check the paths"
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


def shard(recordings: Sequence[Recording], part: str) -> list[Recording]:
    """The recordings of part `i/n`, i from 1 to n: disjoint, together all, and the same on every machine."""
    index, _, count = part.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ValueError(f"{part!r} is no part of a whole; give i/n with i from 1 to n, such as 1/4")
    return list(recordings[int(index) - 1 :: int(count)])


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else name


def _expand(argument: str) -> list[tuple[Path, str]]:
    """Paths and names of what one argument means."""
    path = Path(argument)
    if path.is_dir():
        # os.walk, because rglob does not enter linked folders
        walk = os.walk(path, followlinks=True)
        found = [Path(parent, name) for parent, _, names in walk for name in names if _is_recording(name)]
        return [(file, file.relative_to(path).as_posix()) for file in found]
    if glob.has_magic(argument) and not path.exists():
        fixed = [part for part in path.parts[: _first_pattern(path)]]
        base = Path(*fixed)
        matches = [Path(match) for match in glob.glob(argument, recursive=True)]
        return [(file, file.relative_to(base).as_posix()) for file in matches if file.is_file()]
    if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        return [_listed(entry, path.parent) for entry in _read_list(path)]
    return [(path, path.name)]


def _is_recording(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def _first_pattern(path: Path) -> int:
    return next(index for index, part in enumerate(path.parts) if glob.has_magic(part))


def _read_list(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            column = [row[0].strip() for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if row]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    entries = [entry for entry in column if entry]
    return entries[1:] if entries[:1] == ["filename"] else entries


def _listed(entry: str, folder: Path) -> tuple[Path, str]:
    path = folder / entry
    if not path.exists() and Path(entry).exists():
        path = Path(entry)
    name = os.path.normpath(entry)
    inside = not os.path.isabs(name) and not name.startswith("..")
    return path, Path(name).as_posix() if inside else Path(name).name
