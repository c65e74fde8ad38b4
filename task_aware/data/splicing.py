"""A file whose beginning is replaced, for decoders that believe a header which is wrong."""

from __future__ import annotations

import io
from typing import BinaryIO

#: Bytes from the beginning that can be read again when the body cannot seek; headers are shorter.
KEPT = 1 << 20

#: Length of a stream whose end is not known.
ENDLESS = 1 << 60


class Spliced:
    """`head`, followed by the rest of `body` from where it stands, as a file that soundfile can read.

    `body` may be a pipe. Then seeking is possible to where reading has stopped and within the first KEPT bytes;
    elsewhere there is nothing to read.

    Args:
        head: the first bytes.
        body: what follows.
        n_body: its length in bytes.
    """

    def __init__(self, head: bytes, body: BinaryIO, n_body: int = ENDLESS) -> None:
        self._kept = bytearray(head)
        self._body = body
        self._length = len(head) + n_body
        self._start = body.tell() - len(head) if body.seekable() else None
        self._done = len(head)  # where a pipe stands
        self._position = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        if self._position < len(self._kept):
            data = bytes(self._kept[self._position : self._position + count])
            self._position += len(data)
            return data + self.read(count - len(data)) if len(data) < count else data
        elif self._start is not None:
            self._body.seek(self._start + self._position)
            data = self._body.read(count)
        elif self._position == self._done:
            try:
                data = self._body.read(count)
            except KeyboardInterrupt:  # ends a live stream, as its end would
                data = b""
            self._done += len(data)
            if self._position == len(self._kept) and self._done <= KEPT:
                self._kept += data
        else:
            data = b""
        self._position += len(data)
        return data
