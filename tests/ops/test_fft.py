"""The FFT of the CPU kernels against numpy."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from .probes import LEVELS, compile_probe, pointer


@pytest.fixture(scope="module", params=LEVELS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compile_probe("fft_probe", tmp_path_factory.mktemp("fft"), LEVELS[request.param], "cpu/fft.cpp")


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
