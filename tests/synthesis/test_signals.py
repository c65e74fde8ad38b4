"""The building blocks do what their formulas say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from task_aware.synthesis import signals
from task_aware.synthesis.signals import SAMPLE_RATE


@given(st.integers(1, 400_000))
def test_fast_length_is_the_smallest_of_its_kind(n: int) -> None:
    allowed = sorted(odd << shift for odd in (1, 3, 5, 9, 15) for shift in range(21))
    assert signals.fast_length(n) == next(length for length in allowed if length >= n)


@pytest.mark.parametrize("n", [1, 127, 128, 5000])
def test_filter_over_time_with_a_flat_response_changes_nothing(n: int) -> None:
    signal = np.random.default_rng(0).standard_normal(n)
    flat = np.ones((signals.frame_count(n), 257))
    np.testing.assert_allclose(signals.filter_over_time(signal, flat), signal, atol=1e-12)


def test_filter_over_time_follows_its_response() -> None:
    n = 16000
    response = np.ones((signals.frame_count(n), 257))
    response[: len(response) // 2] = 0.1
    out = signals.filter_over_time(np.random.default_rng(0).standard_normal(n), response)
    assert signals.rms(out[: n // 2 - 600]) == pytest.approx(0.1, rel=0.05)
    assert signals.rms(out[n // 2 + 600 :]) == pytest.approx(1.0, rel=0.05)


def test_shaped_noise_has_the_spectrum_of_its_points() -> None:
    noise = signals.shaped_noise(
        np.random.default_rng(0), 160000, [(20.0, 0.0), (1000.0, 0.0), (4000.0, -20.0), (8000.0, -20.0)]
    )
    power = np.square(np.abs(np.fft.rfft(noise)))
    hertz = np.fft.rfftfreq(len(noise), 1.0 / SAMPLE_RATE)
    low, middle, high = (power[(hertz > a) & (hertz < b)].mean() for a, b in ((100, 900), (1950, 2050), (5e3, 7e3)))
    assert 10 * np.log10(middle / low) == pytest.approx(-10.0, abs=1.0)
    assert 10 * np.log10(high / low) == pytest.approx(-20.0, abs=1.0)
    assert signals.rms(noise) == pytest.approx(1.0)


def test_oscillator_has_its_harmonics_and_no_aliases() -> None:
    wave = signals.oscillator(np.random.default_rng(0), np.full(16000, 1000.0), np.array([1.0, 0.5] + [1.0] * 20))
    spectrum = np.abs(np.fft.rfft(wave))
    peaks = np.flatnonzero(spectrum > 1e-3 * spectrum.max())
    np.testing.assert_array_equal(peaks, 1000 * np.arange(1, 8))
    assert spectrum[2000] / spectrum[1000] == pytest.approx(0.5, rel=1e-3)


def test_ringing_is_the_sum_of_decaying_sines() -> None:
    time = np.arange(800) / SAMPLE_RATE
    expected = np.exp(-time / 0.01) * np.sin(2 * np.pi * 440 * time)
    expected += 0.3 * np.exp(-time / 0.02) * np.sin(2 * np.pi * 900 * time + 1.0)
    modes = np.array([[440.0, 0.01, 1.0, 0.0], [900.0, 0.02, 0.3, 1.0]]).T
    np.testing.assert_allclose(signals.ringing(800, *modes), expected, atol=1e-12)


def test_scatter_adds_each_grain_at_its_start_and_cuts_at_the_end() -> None:
    random = np.random.default_rng(0)
    starts, grains = random.integers(0, 50, 20), random.standard_normal((20, 15))
    expected = np.zeros(70)
    for start, grain in zip(starts, grains, strict=True):
        expected[start : start + 15] += grain
    np.testing.assert_allclose(signals.scatter(50, starts, grains), expected[:50])


@given(st.integers(1, 5000), st.floats(0.1, 100.0), st.integers(0, 10))
def test_wander_stays_within_its_bounds_without_jumps(n: int, rate: float, seed: int) -> None:
    track = signals.wander(np.random.default_rng(seed), n, rate, -0.5, 2.0)
    assert track.shape == (n,)
    assert track.min() >= -0.5 - 1e-12 and track.max() <= 2.0 + 1e-12
    assert np.abs(np.diff(track)).max(initial=0.0) <= 2.5 * 1.5 * rate / SAMPLE_RATE + 1e-12


@pytest.mark.parametrize("n", [1, 2, 3, 1000])
def test_ramp_starts_and_ends_low(n: int) -> None:
    envelope = signals.ramp(n, 0.01, 0.02)
    assert envelope.shape == (n,)
    assert envelope.min() >= 0.0 and envelope.max() <= 1.0
    if n == 1000:
        assert envelope[0] < 1e-3 and envelope[-1] < 1e-3 and envelope[400] == 1.0
