"""Finds recordings in folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from task_aware.base.errors import DataError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg")

#: Those of room impulse responses.
RESPONSE_SUFFIXES = (*AUDIO_SUFFIXES, ".sofa")

#: Folders that systems keep beside the user's: trash, thumbnails, what is left of archives. Hidden ones are others.
SYSTEM_FOLDERS = {"__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found", "@eaDir", "#recycle"}


def is_hidden(name: str) -> bool:
    """Whether a file or folder is not the user's own by its name (such as `.git`, or macOS's `._x.wav`)."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def walk(folder: Path) -> Iterator[Path]:
    """Yields the files below a folder, without hidden ones, and what is neither a file nor a broken link.

    Links to folders are followed, as data sets are often assembled from them, but each folder is entered once: under
    its own name if it is below `folder`, else under the first link to it.

    Raises DataError if a folder cannot be read.
    """
    entered = {_identity(parent) for parent in folder.resolve().parents}  # a link to one of them leads back here
    linked = [folder]
    while linked:  # links are followed after everything else, so that a folder's own name comes first
        todo, linked = linked, []
        for start in todo:
            ordered = [start]
            while ordered:
                parent = ordered.pop()
                if (identity := _identity(parent)) in entered:
                    continue
                entered.add(identity)
                try:
                    found = [entry for entry in os.scandir(parent) if not is_hidden(entry.name)]
                except OSError as error:
                    raise DataError(
                        f"{parent} cannot be searched for recordings ({error.strerror}); make it readable, or move it."
                    ) from error
                found.sort(key=lambda entry: entry.name)
                for entry in found:
                    path = Path(parent, entry.name)
                    if entry.is_dir():
                        (linked if entry.is_symlink() else ordered).append(path)
                    elif entry.is_file() or (entry.is_symlink() and not path.exists()):
                        yield path


def _identity(folder: Path) -> tuple[int, int]:
    state = os.stat(folder)
    return state.st_dev, state.st_ino


def find_audio(folder: Path, relative_to: Path, suffixes: Sequence[str] = AUDIO_SUFFIXES) -> list[Path]:
    """Lists all recordings below `folder` as paths relative to `relative_to`, sorted by name; see `walk`."""
    if not folder.is_dir():
        return []
    found = [path.relative_to(relative_to) for path in walk(folder) if path.suffix.lower() in suffixes]
    return sorted(found, key=lambda path: path.as_posix())
