"""Serves the page of a folder of results to browsers on this machine."""

from __future__ import annotations

import os
import re
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from task_aware.viewing.page import DATA, PAGE

#: What the page consists of: itself, its data, and sound.
_SERVED = {(), (PAGE,), (DATA,), ("audio",)}

#: Most bytes of one answer to a request for a part of a file; players ask again for what follows.
_PART = 1 << 20


def make_server(root: Path, port: int) -> ThreadingHTTPServer:
    """A server of the page in `root` and of what belongs to it, for this machine only; port 0 chooses a free one.

    Raises OSError if the port cannot be used.
    """
    return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, directory=os.fspath(root)))


class _Handler(SimpleHTTPRequestHandler):
    """Answers with whole files, and with parts where they are asked for, without which players cannot jump."""

    protocol_version = "HTTP/1.1"

    def send_head(self) -> Any:
        path = Path(self.translate_path(self.path))
        if path.relative_to(self.directory).parts[:1] not in _SERVED:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted or not path.is_file():
            return super().send_head()
        with path.open("rb") as file:
            return self._part(file, int(wanted[1]), int(wanted[2]) if wanted[2] else None)

    def _part(self, file: BinaryIO, first: int, last: int | None) -> BytesIO | None:
        size = os.fstat(file.fileno()).st_size
        if first >= size:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        file.seek(first)
        content = file.read(min(_PART, size - first if last is None else last + 1 - first))
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", self.guess_type(str(file.name)))
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{size}")
        self.end_headers()
        return BytesIO(content)

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing of requests."""
