"""Digests of the C++ and CUDA sources, to compare what a library was built from with a checkout.

Imports nothing from the package, as setup.py uses this module before anything is built.
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
    """Digest of all source files in ``csrc``; changes with any edit."""
    digest = hashlib.sha256()
    for path in _files(csrc):
        digest.update(path.relative_to(csrc).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return _shorten(digest)


def schemas_digest(csrc: Path) -> str:
    """Digest of the operators' schemas in ``csrc``; changes when Python no longer matches a built library."""
    digest = hashlib.sha256()
    for path in _files(csrc):
        for schema in re.findall(r"m\.def\(([^;]*)\);", path.read_text(encoding="utf-8")):
            digest.update("".join(re.findall(r'"([^"]*)"', schema)).encode() + b"\0")
    return _shorten(digest)
