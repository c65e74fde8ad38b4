"""Seek tables of FLAC files, with which browsers jump quickly.

The library that writes the files leaves the table out. Chromium (156) then searches the file for each jump, and if that
is into the last frame but one, fails and plays the file no more.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import sys
from pathlib import Path

from task_aware.base.files import replacing

#: Frames between two points of a table; browsers decode from the point before where they jump to.
STEP = 4

_STREAM_INFO_END = 42
_SEEK_TABLE, _LAST = 3, 0x80


def add_seek_table(path: Path) -> None:
    """Adds a table of where its frames begin to a FLAC file whose frames are of one length, unless it has one.

    Other files stay as they are.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != b"fLaC":
            return
        start = 4
        kinds: list[int] = []
        while not kinds or not kinds[-1] & _LAST:
            kinds.append(data[start])
            start += 4 + int.from_bytes(data[start + 1 : start + 4], "big")
        if _SEEK_TABLE in (kind & ~_LAST for kind in kinds):
            return
        frames = _frames(data, start)
        points = b"".join(struct.pack(">QQH", *point) for point in frames[::STEP])
        table = bytes([_SEEK_TABLE | kinds[0] & _LAST]) + len(points).to_bytes(3, "big") + points
        with replacing(path) as temporary, temporary.open("wb") as out:
            out.write(data[:4] + bytes([kinds[0] & ~_LAST]) + data[5:_STREAM_INFO_END] + table)
            file.seek(_STREAM_INFO_END)
            shutil.copyfileobj(file, out, 1 << 20)


def _frames(data: mmap.mmap, start: int) -> list[tuple[int, int, int]]:
    """First sample, byte after `start` and number of samples of all frames but a shorter one at the end."""
    n_samples, shortest = int.from_bytes(data[8:10], "big"), int.from_bytes(data[12:15], "big")
    frames: list[tuple[int, int, int]] = []
    place = start
    while place >= 0 and len(frames) <= sys.maxunicode:  # 79 hours at 16 kHz; what follows has no points
        frames.append((len(frames) * n_samples, place - start, n_samples))
        # a frame begins with its format, the same for all, and its number; long enough not to occur by chance
        place = data.find(data[start : start + 4] + chr(len(frames)).encode("utf-8", "surrogatepass"), place + shortest)
    return frames
