"""Ambient backgrounds: slowly varying coloured noise, hum, rumble, wind, a fan, a clock, thumps.

None of them contains a sound of the ten classes.
"""

from __future__ import annotations

import numpy as np

from task_aware.synthesis.signals import (
    SAMPLE_RATE,
    Array,
    bumps,
    decibels,
    log_uniform,
    oscillator,
    ramp,
    ringing,
    rms,
    samples,
    shaped_noise,
    wander,
)


def _air(rng: np.random.Generator, n: int) -> Array:
    """Room tone: noise falling by 2 to 9 dB per octave, with a few broad resonances."""
    slope, knee = rng.uniform(2.0, 9.0), log_uniform(rng, 60.0, 300.0)
    points = [(20.0, -12.0), (knee, 0.0), (8000.0, -slope * np.log2(8000.0 / knee))]
    extra = bumps(rng, np.linspace(0.0, SAMPLE_RATE / 2.0, 1025), 4, 80.0, 3000.0, 5.0)
    return shaped_noise(rng, n, points, extra) * (1.0 + 0.2 * wander(rng, n, 0.7))


def _hum(rng: np.random.Generator, n: int) -> Array:
    mains = float(rng.choice([50.0, 60.0, 100.0]))
    partials = np.arange(1, 10, dtype=np.float64) ** -rng.uniform(1.2, 2.5) * rng.uniform(0.3, 1.0, 9)
    return oscillator(rng, np.full(n, mains), partials)


def _rumble(rng: np.random.Generator, n: int) -> Array:
    """Distant traffic: vehicles passing by."""
    passing = 0.15 + np.clip(wander(rng, n, rng.uniform(0.15, 0.5)), 0.0, 1.0)
    return shaped_noise(rng, n, [(25.0, -10.0), (70.0, 0.0), (250.0, -8.0), (1000.0, -26.0), (8000.0, -60.0)]) * passing


def _wind(rng: np.random.Generator, n: int) -> Array:
    gusts = np.exp(0.8 * wander(rng, n, rng.uniform(0.4, 1.2)))
    return shaped_noise(rng, n, [(40.0, 0.0), (200.0, -6.0), (700.0, -14.0), (3000.0, -34.0), (8000.0, -50.0)]) * gusts


def _fan(rng: np.random.Generator, n: int) -> Array:
    """The fan of a computer or a cooker hood: steady noise with a faint low tone."""
    points = [(40.0, -8.0), (150.0, 0.0), (600.0, -5.0), (2500.0, -16.0), (8000.0, -32.0)]
    tone = oscillator(rng, np.full(n, rng.uniform(60.0, 240.0)), np.array([1.0, 0.4, 0.15]))
    return shaped_noise(rng, n, points) + decibels(rng.uniform(-24.0, -10.0)) * tone


def _clock(rng: np.random.Generator, n: int) -> Array:
    period = samples(float(rng.choice([0.5, 1.0])))
    tick = ringing(400, rng.uniform(1500, 5000, 4), rng.uniform(0.001, 0.004, 4), rng.uniform(0.3, 1.0, 4))
    total = np.zeros(n + period)
    for k, start in enumerate(range(int(rng.integers(period)), n, period)):
        total[start : start + len(tick)] += tick * (1.0 if k % 2 else 0.7)
    return total[:n] / (rms(total[:n]) * 3.0)


def _thumps(rng: np.random.Generator, n: int) -> Array:
    """Footsteps and doors behind a wall."""
    total = np.zeros(n + 4000)
    for start in rng.integers(0, n, size=rng.integers(1, 12)):
        total[start : start + 4000] += rng.uniform(0.2, 1.0) * ringing(
            4000, rng.uniform(40, 180, 3), rng.uniform(0.02, 0.06, 3), rng.uniform(0.3, 1.0, 3)
        )
    return total[:n] / (rms(total[:n]) + 1e-6)


_LAYERS = (_hum, _rumble, _wind, _fan, _clock, _thumps)


def background(rng: np.random.Generator, seconds: float) -> Array:
    """Synthesises an ambience `[n]` of the given length with RMS 1: room tone and up to three layers."""
    n = samples(seconds)
    signal = _air(rng, n)
    for layer in rng.choice(len(_LAYERS), size=rng.integers(0, 4), replace=False):
        signal = signal + decibels(rng.uniform(-14.0, 4.0)) * _LAYERS[layer](rng, n)
    return signal / rms(signal) * ramp(n, 0.01, 0.01)
