"""Options compared by what they mean: data, detectors and recipes by what they hold, wherever they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from task_aware.base.errors import DataError
from task_aware.data.finding import RESPONSE_SUFFIXES, find_audio

#: Options, or lists of them, that may name a file.
FILES = ("detector", "detector_config", "denoiser_config", "config")


#: Bytes of each recording by which it is recognised.
SAMPLED = 1024


def identified(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as JSON, in which folders of data and files have a `path` and their `content`.

    `rirs` is the folder that is used: the given one, or that of the data.

    Raises DataError if a folder of data is not there.
    """
    found = dict(options)
    data, rirs = options.get("data"), options.get("rirs")
    if data is not None:
        found["data"] = _of_folder(data, data / "audio", data / "metadata")
        if rirs is None and (data / "rirs").is_dir():
            rirs = data / "rirs"
    found["rirs"] = None if rirs is None else _of_folder(rirs, rirs)
    for name in FILES:
        if isinstance(value := options.get(name), (list, tuple)):
            found[name] = [_of_file(each) for each in value]
        elif value is not None:
            found[name] = _of_file(value)
    return json.loads(json.dumps(found, default=str))


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Which of the options differ, as `NAME was X and is Y`; paths do not count.

    The `max_steps` of a run, an option below others, may grow.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [key for key in old | new if key != "path"]
        return [x for key in keys for x in differences(old.get(key), new.get(key), f"{name}.{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [x for pair in zip(old, new, strict=True) for x in differences(*pair, name)]
    longer = (
        name.count(".") > 1
        and name.endswith(".max_steps")
        and isinstance(old, int)
        and isinstance(new, int)
        and new > old
    )
    return [] if old == new or longer else [f"{name[1:]} was {old} and is {new}"]


def _of_file(name: str | Path) -> object:
    """What identifies a file; anything else, such as the name of a packaged recipe, stands for itself."""
    file = Path(name)
    if not file.is_file():
        return str(name)
    return {"path": str(file.absolute()), "content": hashlib.sha256(_ordered(file.read_bytes())).hexdigest()[:16]}


def _ordered(content: bytes) -> bytes:
    """A safetensors file with its header sorted, as its library writes metadata in any order; others as they are."""
    end = 8 + int.from_bytes(content[:8], "little")
    try:
        return json.dumps(json.loads(content[8:end]), sort_keys=True).encode() + content[end:]
    except (ValueError, RecursionError, OverflowError):
        return content


def _sample(file: Path) -> bytes:
    """The size of a recording and some of its bytes, from the middle."""
    try:
        with file.open("rb") as opened:
            size = file.stat().st_size
            opened.seek(size // 2)
            return f"{size}\t".encode() + opened.read(SAMPLED)
    except OSError:
        return b"missing"


def _of_folder(root: Path, *folders: Path) -> dict[str, str]:
    """What identifies data: names, sizes and some bytes of the recordings in the folders; the tables."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; check the path")
    digest = hashlib.sha256()
    count = 0
    for folder in folders:
        for name in find_audio(folder, folder, RESPONSE_SUFFIXES):
            file = folder / name
            digest.update(f"{name.as_posix()}\t".encode(errors="surrogateescape") + _sample(file) + b"\n")
            count += 1
        for table in sorted(folder.rglob("*.tsv")):
            name_of_table = table.relative_to(folder).as_posix()
            digest.update(f"{name_of_table}\n".encode(errors="surrogateescape") + table.read_bytes())
    return {"path": str(root.absolute()), "content": f"{count} recordings {digest.hexdigest()[:16]}"}
