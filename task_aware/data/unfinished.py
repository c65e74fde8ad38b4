"""Sets of recordings that are made in a folder, of which an interrupted command leaves a part."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from task_aware.base.errors import DataError
from task_aware.base.files import read_json, replacing


def begin(recipe: Path, content: Mapping[str, object], folders: Sequence[Path], own: re.Pattern[str]) -> None:
    """Says in the file `recipe` how a set is made, before its first recording, and empties its folders.

    The table of the set must not be there yet. What an unfinished set left goes: the files of `folders` whose path
    below the folder matches `own`, if there is a recipe.

    Raises DataError, and removes nothing, if there are other files.
    """
    below = [(path, path.relative_to(folder)) for folder in folders for path in folder.rglob("*")]
    found = [(path, name) for path, name in below if path.is_symlink() or not path.is_dir()]
    for path, name in found:
        if not (_is_recipe(recipe) and own.fullmatch(name.as_posix())):
            raise DataError(f"{path} is there already, but not from an unfinished run; give another --out, or move it")
    for path, _ in found:
        path.unlink()
    for folder in folders:
        for empty in sorted(folder.rglob("*"), reverse=True):
            empty.rmdir()
    with replacing(recipe) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _is_recipe(path: Path) -> bool:
    try:
        content = read_json(path)
    except DataError:
        return False
    return isinstance(content, dict) and {"seed", "data", "number"} <= content.keys()
