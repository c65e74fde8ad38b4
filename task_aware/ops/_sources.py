"""Digests of the C++ and CUDA sources: what a library was built from, held against what a checkout holds.

Imports nothing of the package, for setup.py reads it before anything is built.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_SUFFIXES = (".h", ".cpp", ".cu", ".cuh")


def _files(csrc: Path) -> list[Path]:
    return sorted(path for path in csrc.rglob("*") if path.suffix in _SUFFIXES)


def _shorten(digest: hashlib._Hash) -> str:
    return digest.hexdigest()[:16]


def sources_digest(csrc: Path) -> str:
    """Digest of every source file in ``csrc``: changes with any edit."""
    digest = hashlib.sha256()
    for path in _files(csrc):
        digest.update(path.relative_to(csrc).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return _shorten(digest)


def schemas_digest(csrc: Path) -> str:
    """Digest of the operators' schemas in ``csrc``: changes where Python and a library no longer fit."""
    digest = hashlib.sha256()
    for path in _files(csrc):
        for schema in re.findall(r"m\.def\(([^;]*)\);", path.read_text(encoding="utf-8")):
            digest.update("".join(re.findall(r'"([^"]*)"', schema)).encode() + b"\0")
    return _shorten(digest)
