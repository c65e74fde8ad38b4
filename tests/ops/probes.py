"""Pieces of csrc behind a C interface, for the tests of what no operator shows alone."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

CSRC = Path(__file__).parents[2] / "csrc"

#: Compiler options, by what they choose.
LEVELS = {"widest vectors": [], "narrowest vectors": ["-DTASK_AWARE_X86_LEVELS=0"]}


def compile_probe(name: str, folder: Path, options: list[str], *sources: str) -> ctypes.CDLL:
    """`name`.cpp beside this file, with `sources` of csrc; skips without a compiler."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    output = folder / f"{name}.so"
    subprocess.run(
        [
            compiler,
            *("-std=gnu++20", "-O1", "-fPIC", "-shared", "-w", "-DTORCH_TARGET_VERSION=0x020b000000000000"),
            *options,
            *("-I", str(CSRC), "-isystem", str(Path(torch.__file__).parent / "include")),
            *(str(Path(__file__).parent / f"{name}.cpp"), *(str(CSRC / source) for source in sources)),
            *("-o", str(output)),
        ],
        check=True,
    )
    return ctypes.CDLL(str(output))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
