"""Atomic writing of files, and folders that one command writes to at a time."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from task_aware.base.errors import DataError, OutputError

#: Most bytes in a file's name, on all common file systems.
LONGEST_NAME = 255

#: Folders that this process has claimed, with the descriptors that hold the locks.
_claimed: dict[Path, int] = {}


def hidden(path: Path) -> Path:
    """A hidden path beside `path` for a temporary file of this process, not too long if the name of `path` is not."""
    name = os.fsencode(path.name)
    kept = path.name if len(name) <= LONGEST_NAME // 2 else hashlib.sha256(name).hexdigest()
    return path.with_name(f".{kept}.{os.getpid()}.tmp")


def is_hidden(path: Path) -> bool:
    """Whether a path is named as `hidden` names them, by any process."""
    return re.fullmatch(r"\..+\.\d+\.tmp", path.name, re.DOTALL) is not None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, which replaces `path` at the end; after an error it is deleted instead.

    It is in the folder of `path`, which is created if missing. Its name ends in `.tmp` and is unique to this process,
    so that several processes can write to the same `path`.

    Raises OutputError if the file or its folder cannot be written.
    """
    temporary = hidden(path)
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


def read_json(path: Path) -> Any:
    """What a file of JSON holds. Raises DataError if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path} cannot be read as JSON ({reason}); restore or remove it") from error


def cannot_write(path: Path, reason: object) -> OutputError:
    """The error to raise where `path` cannot be written."""
    return OutputError(f"{path} cannot be written ({reason}); free some space, or choose another folder")


def claim(folder: Path, *, shared: bool = False) -> None:
    """Keeps commands in other processes out of a folder of results, which is made if missing, until this one ends.

    The system forgets the claim with the process, however that ends. File systems without locks keep nobody out.

    Args:
        folder: the folder.
        shared: let others in that claim it as shared, too.

    Raises OutputError if another command has claimed the folder, or if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise cannot_write(folder, error.strerror) from error
    known = folder.resolve()
    if known in _claimed:
        os.close(descriptor)
        return
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OutputError(f"another command is writing to {folder}; wait for its end, or give another --out") from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    _claimed[known] = descriptor


def _forget_claims() -> None:
    """A forked worker may outlive the command by seconds, and must not keep others out."""
    for descriptor in _claimed.values():
        os.close(descriptor)
    _claimed.clear()


os.register_at_fork(after_in_child=_forget_claims)
