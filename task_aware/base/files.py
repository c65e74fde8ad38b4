"""Atomic writing of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from task_aware.base.errors import OutputError

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

    Raises OutputError if the file or its folder cannot be written.
    """
    temporary = hidden(path, f"{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if isinstance(error, OutputError) or Path(error.filename or path) not in (temporary, path, *path.parents):
            raise  # of another file
        raise cannot_write(path, error.strerror or error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, reason: object) -> OutputError:
    """The error to raise where `path` cannot be written."""
    return OutputError(f"{path} cannot be written ({reason}); free some space, or choose another folder")
