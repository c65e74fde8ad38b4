"""Atomic writing of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Most bytes in a file's name, on all common file systems.
LONGEST_NAME = 255


def hidden(path: Path, ending: str) -> Path:
    """A hidden path beside `path` for a temporary file, whose name is not too long if that of `path` is not."""
    name = os.fsencode(path.name)
    kept = path.name if len(name) <= LONGEST_NAME // 2 else hashlib.sha256(name).hexdigest()
    return path.with_name(f".{kept}.{ending}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, which replaces `path` at the end; after an error it is deleted instead.

    It is in the folder of `path`, which is created if missing. Its name ends in `.tmp` and is unique to this process,
    so that several processes can write to the same `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = hidden(path, f"{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
