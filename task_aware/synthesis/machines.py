"""Electric machines: Blender, Electric_shaver_toothbrush, Vacuum_cleaner.

All three are a motor's harmonics plus noise, filtered by a housing, and their parameter ranges overlap on purpose.
They differ in the balance of tone and noise, in their spectrum, and in how load, hand or nozzle change it.
"""

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
    oscillator,
    ramp,
    rms,
    rough_curve,
    samples,
    scatter,
    shape,
    shaped_noise,
    wander,
)


def _run_up(rng: np.random.Generator, n: int, up: float, down: float, depth: float) -> Array:
    """Relative speed `[n]` of a motor that is switched on at the start and off near the end."""
    time = np.arange(n) / SAMPLE_RATE
    left = (n - np.arange(n)) / SAMPLE_RATE
    rising = 1.0 - depth * np.exp(-time / max(up / 3.0, 1e-3))
    falling = np.clip(left / max(down, 1e-3), 0.0, 1.0) ** rng.uniform(0.4, 0.8)
    return rising * (1.0 - depth * (1.0 - falling))


def _housing(rng: np.random.Generator, signal: Array, count: int, low: float, high: float, gain: float) -> Array:
    frequencies = np.linspace(0.0, SAMPLE_RATE / 2.0, 2049)
    return shape(signal, [(20.0, 0.0), (8000.0, 0.0)], bumps(rng, frequencies, count, low, high, gain))


def _moving_tilt(rng: np.random.Generator, signal: Array, rate: float, span: float) -> Array:
    """Filters a signal with a spectral tilt around 1.2 kHz that varies by up to `span` dB per octave."""
    n = len(signal)
    octaves = np.log2(np.maximum(bin_frequencies(), 60.0) / 1200.0)
    slope = wander(rng, n, rate, -span, span)
    frames = slope[np.minimum(np.arange(frame_count(n)) * 128, n - 1)]
    return filter_over_time(signal, 10.0 ** (frames[:, None] * octaves[None] / 20.0))


def _harmonics(rng: np.random.Generator, count: int, tilt: float, uneven: float) -> Array:
    """Harmonic amplitudes k^-tilt, each changed by a normally distributed level of `uneven` dB."""
    return np.arange(1, count + 1, dtype=np.float64) ** -tilt * 10.0 ** (rng.normal(0.0, uneven, count) / 20.0)


def blender(rng: np.random.Generator) -> Array:
    """Universal motor under a changing load, with chunks hitting the jar; continuous or pulsed. 1.5 to 9 s."""
    n = samples(log_uniform(rng, 1.8, 9.0))
    speed = _run_up(rng, n, rng.uniform(0.15, 0.6), rng.uniform(0.1, 0.6), rng.uniform(0.3, 0.7))
    gate = np.ones(n)
    if rng.uniform() < 0.25:
        gate = np.zeros(n)
        begin = 0
        while begin < n:
            length = min(samples(rng.uniform(0.5, 1.6)), n - begin)
            gate[begin : begin + length] = ramp(length, 0.06, 0.15)
            speed[begin : begin + length] *= _run_up(rng, length, 0.25, 0.2, 0.4)
            begin += length + samples(rng.uniform(0.12, 0.4))
    load = wander(rng, n, rng.uniform(1.0, 5.0))
    rotation = (
        log_uniform(rng, 110.0, 340.0) * speed * (1.0 + rng.uniform(0.01, 0.06) * load + 0.004 * wander(rng, n, 40.0))
    )
    motor = oscillator(rng, rotation, _harmonics(rng, 60, rng.uniform(0.3, 1.0), 6.0))
    motor *= 1.0 + 0.25 * load
    spectrum = rough_curve(rng, [(80.0, -18.0), (300.0, -4.0), (900.0, 0.0), (2500.0, -3.0), (8000.0, -14.0)], 5.0)
    churn = shaped_noise(rng, n, spectrum) * (1.0 + 0.4 * wander(rng, n, rng.uniform(6.0, 25.0))) * speed**1.5
    sound = motor + decibels(rng.uniform(-9.0, 4.0)) * churn
    if rng.uniform() < 0.6:
        count = int(n / SAMPLE_RATE * log_uniform(rng, 4.0, 30.0))
        grains = (
            rng.standard_normal((count, 320))
            * np.exp(-np.arange(320) / rng.uniform(30, 90))
            * rng.gamma(0.7, 1.0, (count, 1))
        )
        early = (rng.beta(1.0, rng.uniform(1.0, 4.0), count) * (n - 1)).astype(np.int64)
        chunks = scatter(n, early, grains)
        sound += rng.uniform(0.2, 0.9) * shape(chunks, [(150.0, -12.0), (600.0, 0.0), (2000.0, -3.0), (8000.0, -18.0)])
    sound = _housing(rng, sound, 7, 250.0, 5500.0, rng.uniform(6.0, 13.0))
    return sound * gate * (0.35 + 0.65 * speed) * ramp(n, 0.05, 0.12)


def electric_shaver_toothbrush(rng: np.random.Generator) -> Array:
    """Buzz of 50 to 130 Hz (shaver) or 180 to 290 Hz (toothbrush), with most energy above 1 kHz. 1.8 to 9 s."""
    n = samples(log_uniform(rng, 1.8, 9.0))
    brush = rng.uniform() < 0.4
    base = log_uniform(rng, 180.0, 290.0) if brush else log_uniform(rng, 50.0, 130.0)
    speed = _run_up(rng, n, rng.uniform(0.02, 0.2), rng.uniform(0.03, 0.25), rng.uniform(0.1, 0.4))
    pressure = wander(rng, n, rng.uniform(0.8, 4.0))
    frequency = base * speed * (1.0 + rng.uniform(0.002, 0.035) * pressure + 0.003 * wander(rng, n, 30.0))
    buzz = oscillator(rng, frequency, _harmonics(rng, 130, rng.uniform(-0.1, 0.6), 5.0))
    buzz = shape(
        buzz,
        rough_curve(
            rng,
            [(50.0, -14.0), (250.0, -8.0), (900.0, -4.0), (2600.0, 0.0), (5200.0, -4.0), (8000.0, -14.0)],
            5.0,
        ),
    )
    buzz /= rms(buzz)
    spectrum = rough_curve(rng, [(200.0, -24.0), (1200.0, -10.0), (3500.0, 0.0), (6000.0, -2.0), (8000.0, -10.0)], 5.0)
    cycle = np.cumsum(frequency) / SAMPLE_RATE
    rasp = shaped_noise(rng, n, spectrum) * (1.0 + rng.uniform(0.0, 0.9) * np.sin(2 * np.pi * cycle))
    sound = buzz + decibels(rng.uniform(-12.0, 3.0)) * rasp * (1.0 + 0.5 * pressure)
    sound = _housing(rng, sound, 6, 500.0, 6500.0, rng.uniform(6.0, 12.0))
    sound = _moving_tilt(rng, sound, rng.uniform(0.7, 2.5), rng.uniform(0.5, 2.5))
    return sound * (1.0 + rng.uniform(0.1, 0.35) * pressure) * ramp(n, 0.02, 0.05)


def vacuum_cleaner(rng: np.random.Generator) -> Array:
    """Rush of air with the whine of a fan, a slow start and stop, and strokes of the nozzle. 2.5 to 9.8 s."""
    n = samples(log_uniform(rng, 2.5, 9.8))
    speed = _run_up(rng, n, rng.uniform(0.3, 1.4), rng.uniform(0.3, 1.2), rng.uniform(0.4, 0.8))
    stroke = wander(rng, n, rng.uniform(0.6, 2.0))
    spectrum = rough_curve(
        rng,
        [(60.0, -14.0), (200.0, -4.0), (600.0, 0.0), (1800.0, -4.0), (4000.0, -9.0), (8000.0, -18.0)],
        5.0,
    )
    air = _moving_tilt(rng, shaped_noise(rng, n, spectrum), rng.uniform(0.6, 2.0), rng.uniform(0.3, 1.8))
    air *= (0.25 + 0.75 * speed**2) * (1.0 + 0.15 * stroke)
    rotation = log_uniform(rng, 220.0, 620.0) * speed * (1.0 + rng.uniform(0.003, 0.025) * stroke)
    motor = oscillator(rng, rotation, _harmonics(rng, 30, rng.uniform(0.5, 1.3), 7.0))
    blades = float(rng.integers(5, 10))
    whine = oscillator(
        rng, rotation * blades if rotation.max() * blades < 7000.0 else rotation * 3.0, np.array([1.0, 0.25])
    )
    sound: Array = (
        air + decibels(rng.uniform(-18.0, -1.0)) * motor * speed + decibels(rng.uniform(-28.0, -8.0)) * whine * speed
    )
    if rng.uniform() < 0.3:
        count = int(n / SAMPLE_RATE * log_uniform(rng, 2.0, 15.0))
        grains = rng.standard_normal((count, 200)) * np.exp(-np.arange(200) / 25.0) * rng.gamma(0.7, 1.0, (count, 1))
        sound += 0.5 * scatter(n, rng.integers(0, n, count), grains)
    sound = _housing(rng, sound, 6, 120.0, 4000.0, rng.uniform(4.0, 10.0))
    return sound * ramp(n, 0.15, 0.25)
