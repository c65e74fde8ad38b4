import numpy as np
import pytest
import torch

from task_aware.data.packing import loop, loop_period

from .recordings import burst

FADE = 800


def looped(samples: np.ndarray, start: int, n_samples: int) -> np.ndarray:
    return loop(torch.from_numpy(samples), start, n_samples, FADE).numpy()


@pytest.mark.parametrize("length", [1, 2, 3, 100, 7000, 79999])
def test_loops_have_the_length_wanted(length):
    found = looped(np.ones(length, dtype=np.float32), 0, 80000)
    assert found.shape == (80000,) and found.dtype == np.float32
    assert found.min() >= 0.999


def test_loops_keep_the_level_at_their_seams():
    powers = np.square(looped(burst(0.5, level=0.1), 0, 100 * 8000)).reshape(-1, 400).mean(axis=1)
    assert np.abs(10 * np.log10(powers / 0.01)).max() < 1.5


def test_loops_start_where_they_are_told():
    noise = burst(0.5)
    period = loop_period(len(noise), FADE)
    whole = looped(noise, 0, 3 * period)
    assert np.array_equal(looped(noise, 5000, 2 * period), whole[5000 : 5000 + 2 * period])
    assert np.array_equal(whole[FADE:period], noise[FADE:period])
