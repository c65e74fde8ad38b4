"""The FFT of the CPU kernels against numpy."""

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


@pytest.fixture(scope="module", params=["", "-DTASK_AWARE_X86_LEVELS=0"], ids=["widest vectors", "narrowest vectors"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    output = tmp_path_factory.mktemp("fft") / "fft_probe.so"
    subprocess.run(
        [
            compiler,
            *("-std=gnu++20", "-O1", "-fPIC", "-shared", "-w", "-DTORCH_TARGET_VERSION=0x020b000000000000"),
            *filter(None, [request.param]),
            *("-I", str(CSRC), "-isystem", str(Path(torch.__file__).parent / "include")),
            *(str(Path(__file__).parent / "fft_probe.cpp"), str(CSRC / "cpu" / "fft.cpp"), "-o", str(output)),
        ],
        check=True,
    )
    return ctypes.CDLL(str(output))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


# Every radix alone and together, primes without a butterfly, one element; lengths that fill vectors; a long one.
SIZES = [*range(1, 21), 25, 27, 49, 60, 64, 77, 97, 100, 121, 128, 240, 256, 320, 512, 1000, 1024, 1501, 1536, 6000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_any_length(library: ctypes.CDLL, size: int, dtype: type, tolerance: float) -> None:
    generator = np.random.default_rng(size)
    re, im = (generator.standard_normal(size).astype(dtype) for _ in range(2))
    wanted = np.fft.fft(re.astype(np.float64) + 1j * im)
    name = "transform_float" if dtype is np.float32 else "transform_double"
    getattr(library, name)(ctypes.c_int64(size), pointer(re), pointer(im))
    assert np.abs(re + 1j * im - wanted).max() < tolerance * np.abs(wanted).max()
