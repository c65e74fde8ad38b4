"""exp and log of the CPU kernels against numpy in float64."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from .probes import LEVELS, compile_probe, pointer


@pytest.fixture(scope="module", params=LEVELS)
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compile_probe("fast_math_probe", tmp_path_factory.mktemp("fast_math"), LEVELS[request.param])


def apply(library: ctypes.CDLL, name: str, values: np.ndarray) -> np.ndarray:
    result = np.empty_like(values)
    getattr(library, name)(ctypes.c_int64(len(values)), pointer(values), pointer(result))
    return result


def units_in_the_last_place(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    return np.abs(found.astype(np.float64) - exact) / np.spacing(np.abs(exact).astype(np.float32))


def test_exp_is_within_two_units(library: ctypes.CDLL) -> None:
    values = np.concatenate([np.linspace(-87, 88, 2_000_003), np.linspace(-1e-3, 1e-3, 10_001)]).astype(np.float32)
    assert units_in_the_last_place(apply(library, "exp_of", values), np.exp(values.astype(np.float64))).max() < 2


def test_log_is_within_two_units(library: ctypes.CDLL) -> None:
    bits = np.arange(0x00800000, 0x7F800000, 997, dtype=np.int32)  # every normal number, in steps
    around_one = np.linspace(0.99, 1.01, 100_001)
    values = np.concatenate([bits.view(np.float32), around_one]).astype(np.float32)
    assert units_in_the_last_place(apply(library, "log_of", values), np.log(values.astype(np.float64))).max() < 2


def test_what_has_no_value_stays_without(library: ctypes.CDLL) -> None:
    assert np.isnan(apply(library, "exp_of", np.array([np.nan], np.float32)))
    logarithms = apply(library, "log_of", np.array([np.nan, np.inf], np.float32))
    assert np.isnan(logarithms[0]) and logarithms[1] == np.inf
