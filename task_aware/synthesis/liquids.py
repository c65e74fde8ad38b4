"""Sounds made of many small events: Frying (crackle over hiss) and Running_water (bubbles over noise)."""

from __future__ import annotations

import numpy as np

from task_aware.synthesis.signals import (
    SAMPLE_RATE,
    Array,
    bin_frequencies,
    bumps,
    decibels,
    filter_over_time,
    frame_count,
    log_uniform,
    ramp,
    rms,
    rough_curve,
    samples,
    scatter,
    shaped_noise,
    wander,
)


def _uneven_times(rng: np.random.Generator, n: int, rate: float, density: Array) -> np.ndarray:
    """Sorted starts of a Poisson process of `rate` per second, thinned in proportion to `density` (0 to 1)."""
    starts = np.sort(rng.integers(0, n, size=rng.poisson(rate * n / SAMPLE_RATE) + 1))
    return starts[rng.uniform(size=len(starts)) < density[starts]]


def _surface(rng: np.random.Generator, low: float, high: float, gain: float) -> Array:
    return bumps(rng, np.linspace(0.0, SAMPLE_RATE / 2.0, 1025), 5, low, high, gain)


def frying(rng: np.random.Generator) -> Array:
    """Oil in a pan: 25 to 900 clicks of 0.3 to 4 ms per second over a hiss. 2 to 9.5 s.

    Sometimes it begins with a burst that calms down, as when food goes into the pan.
    """
    n = samples(log_uniform(rng, 2.0, 9.5))
    density = np.clip(0.55 + 0.45 * wander(rng, n, rng.uniform(1.0, 6.0)), 0.05, 1.0)
    if rng.uniform() < 0.3:
        time = np.arange(n) / SAMPLE_RATE
        density *= 0.3 + 0.7 * np.exp(-time / rng.uniform(0.8, 3.0))
    starts = _uneven_times(rng, n, log_uniform(rng, 25.0, 900.0), density)
    count = len(starts)
    time = np.arange(160) / SAMPLE_RATE
    frequency = np.exp(rng.normal(np.log(log_uniform(rng, 1500.0, 4500.0)), rng.uniform(0.3, 0.7), (count, 1))).clip(
        300, 7500
    )
    decay = rng.uniform(0.0003, rng.uniform(0.001, 0.004), (count, 1))
    level = np.exp(rng.normal(0.0, rng.uniform(0.7, 1.3), (count, 1)))
    pops = scatter(n, starts, level * np.exp(-time / decay) * np.sin(2 * np.pi * frequency * time))
    spectrum = rough_curve(rng, [(100.0, -26.0), (500.0, -14.0), (1800.0, -5.0), (4500.0, 0.0), (8000.0, -5.0)], 6.0)
    hiss = shaped_noise(rng, n, spectrum, _surface(rng, 300.0, 6000.0, 8.0)) * (0.5 + 0.5 * density)
    sound = pops / rms(pops) + decibels(rng.uniform(-12.0, 9.0)) * hiss
    return sound * (1.0 + 0.15 * wander(rng, n, 1.0)) * ramp(n, rng.uniform(0.02, 0.4), rng.uniform(0.1, 0.6))


def running_water(rng: np.random.Generator) -> Array:
    """A tap, a shower, a trickle or a vessel filling up. 2 to 9.5 s.

    Bubbles ring at the Minnaert frequency, 3.26 m/s divided by their radius; their pitch rises as they near the
    surface.
    """
    n = samples(log_uniform(rng, 2.0, 9.5))
    kind = rng.choice(["tap", "shower", "trickle", "filling"], p=[0.4, 0.2, 0.2, 0.2])
    flow = np.clip(0.8 + 0.2 * wander(rng, n, rng.uniform(0.7, 5.0)), 0.1, 1.0)
    rate = {"tap": (120, 600), "shower": (200, 900), "trickle": (12, 80), "filling": (80, 350)}[str(kind)]
    starts = _uneven_times(rng, n, log_uniform(rng, *rate), flow)
    count = len(starts)
    time = np.arange(480) / SAMPLE_RATE
    radius = np.exp(rng.normal(np.log(log_uniform(rng, 0.0012, 0.005)), rng.uniform(0.25, 0.6), (count, 1)))
    frequency = (3.26 / radius).clip(300.0, 6500.0)
    damping = frequency * (0.13 + 0.0072 * np.sqrt(frequency)) * rng.uniform(0.3, 1.1)
    rise = 1.0 + rng.uniform(0.0, 0.6) * damping * time * 0.1
    level = radius**1.2 * np.exp(rng.normal(0.0, 0.6, (count, 1)))
    bubbles = scatter(n, starts, level * np.exp(-damping * time) * np.sin(2 * np.pi * frequency * rise * time))
    spectrum = rough_curve(rng, [(100.0, -22.0), (400.0, -10.0), (1200.0, -3.0), (3500.0, 0.0), (8000.0, -8.0)], 6.0)
    splash = shaped_noise(rng, n, spectrum, _surface(rng, 300.0, 5000.0, 8.0))
    splash *= flow * (1.0 + rng.uniform(0.05, 0.35) * wander(rng, n, rng.uniform(8.0, 40.0)))
    balance = {"tap": (-6, 8), "shower": (3, 14), "trickle": (-26, -8), "filling": (-6, 6)}[str(kind)]
    sound = bubbles / rms(bubbles) + decibels(rng.uniform(*balance)) * splash
    if kind == "filling":
        frames = np.linspace(0.0, 1.0, frame_count(n))[:, None]
        pitch = log_uniform(rng, 250.0, 700.0) * (1.0 + rng.uniform(0.3, 3.0) * frames**2)
        octaves = np.log2(np.maximum(bin_frequencies(), 30.0))[None]
        level = np.zeros_like(frames) + sum(
            rng.uniform(6.0, 14.0) * np.exp(-0.5 * np.square((octaves - np.log2(k * pitch)) / 0.12)) for k in (1, 3, 5)
        )
        sound = filter_over_time(sound, 10.0 ** (level / 20.0))
    return sound * ramp(n, rng.uniform(0.03, 0.3), rng.uniform(0.05, 0.4))
