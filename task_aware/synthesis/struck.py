"""Struck and electronic sounds: Alarm_bell_ringing (bells and electronic alarms) and Dishes."""

from __future__ import annotations

import numpy as np

from task_aware.synthesis.signals import (
    SAMPLE_RATE,
    Array,
    log_uniform,
    oscillator,
    ramp,
    ringing,
    samples,
    scatter,
    shaped_noise,
    wander,
)

_BELL = np.array([1.0, 1.19, 1.56, 2.0, 2.51, 2.66, 3.01, 4.1, 5.4])
"""Partials of a small bell or gong, relative to its lowest strong one."""


def _strike(rng: np.random.Generator, n: int, lowest: float, decay: float) -> Array:
    """Ringing of one bell struck once, `[n]`."""
    frequencies = lowest * _BELL * rng.uniform(0.97, 1.03, len(_BELL))
    frequencies = np.concatenate([frequencies, frequencies[:4] * 1.004])
    keep = frequencies < 7600.0
    frequencies = frequencies[keep]
    decays = decay * (frequencies / lowest) ** -rng.uniform(0.3, 1.0)
    amplitudes = rng.uniform(0.2, 1.0, len(frequencies)) * (frequencies / lowest) ** -rng.uniform(0.0, 0.8)
    return ringing(n, frequencies, decays, amplitudes, rng.uniform(0, 2 * np.pi, len(frequencies)))


def _bell_ring(rng: np.random.Generator, seconds: float, rate: float, bells: list[Array]) -> Array:
    """Bells struck in turn by a clapper, at `rate` strikes per second."""
    n = samples(seconds)
    gaps = 1.0 / rate * rng.uniform(0.93, 1.07, int(seconds * rate) + 1)
    starts = (np.cumsum(gaps) - gaps[0]) * SAMPLE_RATE
    total = np.zeros(n + len(bells[0]))
    for k, start in enumerate(starts[starts < n].astype(np.int64)):
        bell = bells[k % len(bells)]
        total[start : start + len(bell)] += bell * rng.uniform(0.7, 1.0)
    return total


def _repeat(pattern: Array, gap: float, seconds: float) -> Array:
    """Repeats a pattern, with pauses of `gap` seconds, a whole number of times in about `seconds`."""
    period = len(pattern) + samples(gap)
    count = max(1, round(seconds * SAMPLE_RATE / period))
    return np.tile(np.concatenate([pattern, np.zeros(samples(gap))]), count)[: count * period - samples(gap)]


def _tone(rng: np.random.Generator, frequency: float, seconds: float, partials: Array) -> Array:
    n = samples(seconds)
    return oscillator(rng, np.full(n, frequency), partials) * ramp(n, 0.003, 0.006)


def _partials(rng: np.random.Generator) -> Array:
    """Harmonics of a buzzer: between a sine and a square wave."""
    order = np.arange(1, 12, dtype=np.float64)
    return order ** -rng.uniform(0.8, 3.5) * np.where(order % 2 == 0, rng.uniform(0.0, 1.0), 1.0)


def alarm_bell_ringing(rng: np.random.Generator) -> Array:
    """An alarm clock, telephone bells, a doorbell, beeps, two tones, a siren or a ring tone. 0.5 to 9 s."""
    kind = rng.choice(
        ["clock", "telephone", "chime", "beeps", "two_tone", "siren", "melody"],
        p=[0.2, 0.16, 0.12, 0.22, 0.12, 0.06, 0.12],
    )
    seconds = log_uniform(rng, 0.8, 7.0)
    if kind == "clock":
        bells = [
            _strike(rng, samples(0.5), log_uniform(rng, 900, 3200), rng.uniform(0.06, 0.25))
            for _ in range(rng.integers(1, 3))
        ]
        return _bell_ring(rng, seconds, rng.uniform(8.0, 28.0), bells)
    if kind == "telephone":
        lowest = log_uniform(rng, 700, 1800)
        bells = [
            _strike(rng, samples(0.8), lowest * ratio, rng.uniform(0.08, 0.25))
            for ratio in (1.0, rng.uniform(1.1, 1.35))
        ]
        ring = _bell_ring(rng, rng.uniform(0.4, 1.8), rng.uniform(18.0, 28.0), bells)
        return _repeat(ring, rng.uniform(0.1, 0.6), seconds)[: samples(9.0)]
    if kind == "chime":
        lowest, decay = log_uniform(rng, 400, 1300), rng.uniform(0.2, 0.5)
        second = np.zeros(samples(2.6))
        start = samples(rng.uniform(0.35, 0.8))
        second[start:] = _strike(rng, len(second) - start, lowest * rng.uniform(0.75, 0.85), decay)
        return _strike(rng, len(second), lowest, decay) + (second if rng.uniform() < 0.7 else 0.0)
    partials = _partials(rng)
    frequency = log_uniform(rng, 600, 3800)
    if kind == "beeps":
        on, off = log_uniform(rng, 0.04, 0.5), log_uniform(rng, 0.04, 0.3)
        group = _repeat(_tone(rng, frequency, on, partials), off, int(rng.integers(1, 5)) * (on + off))
        return _repeat(group, rng.uniform(0.1, 0.6), seconds)[: samples(9.0)]
    if kind == "two_tone":
        length = log_uniform(rng, 0.08, 0.6)
        pair = np.concatenate(
            [_tone(rng, f, length, partials) for f in (0.5 * frequency, 0.5 * frequency * rng.uniform(1.15, 1.6))]
        )
        return _repeat(pair, 0.0, seconds)
    if kind == "siren":
        n = samples(seconds)
        phase = np.arange(n) / SAMPLE_RATE * log_uniform(rng, 0.5, 5.0) % 1.0
        sweep = phase if rng.uniform() < 0.5 else 0.5 - 0.5 * np.cos(2 * np.pi * phase)
        return oscillator(rng, 0.5 * frequency * (1.0 + rng.uniform(0.3, 1.0) * sweep), partials) * ramp(n, 0.01, 0.02)
    scale = 0.4 * frequency * 2.0 ** (np.array([0, 2, 4, 7, 9, 12]) / 12.0)
    length = rng.uniform(0.09, 0.3)
    notes = [_tone(rng, float(rng.choice(scale)), length, partials) for _ in range(rng.integers(3, 8))]
    fading = np.exp(-np.arange(len(notes[0])) / len(notes[0]) * rng.uniform(0.0, 3.0))
    return _repeat(np.concatenate([note * fading for note in notes]), rng.uniform(0.0, 0.6), seconds)[: samples(9.0)]


_MATERIALS = {
    "ceramic": (600.0, 2200.0, 0.015, 0.06, 0.9),
    "glass": (1200.0, 3200.0, 0.025, 0.09, 0.6),
    "cutlery": (1800.0, 4500.0, 0.02, 0.08, 0.3),
    "pan": (250.0, 900.0, 0.03, 0.12, 0.7),
    "wood": (200.0, 700.0, 0.008, 0.03, 1.0),
}
"""Range of the lowest mode (Hz), range of its decay (s), exponent by which decays shorten with frequency."""


def _object(rng: np.random.Generator, material: str) -> tuple[Array, Array, Array]:
    """Modes of one object: frequencies, decays, amplitudes `[K]`."""
    low, high, shortest, longest, damping = _MATERIALS[material]
    count = int(rng.integers(7, 16))
    lowest = log_uniform(rng, low, high)
    frequencies = lowest * (1.0 + np.cumsum(np.append(0.0, rng.exponential(rng.uniform(0.25, 0.7), count - 1))))
    keep = frequencies < 7700.0
    frequencies = frequencies[keep]
    decays = log_uniform(rng, shortest, longest) * (frequencies / lowest) ** -damping
    return frequencies, np.maximum(decays, 0.003), rng.uniform(0.1, 1.0, len(frequencies))


def dishes(rng: np.random.Generator) -> Array:
    """From a single clink to a clatter of fifteen: ceramic, glass, cutlery or pans, sometimes with a scrape.

    Up to 3.5 s.
    """
    count = 1 if rng.uniform() < 0.2 else int(rng.integers(2, 16))
    materials = rng.choice(list(_MATERIALS), size=rng.integers(1, 4), p=[0.34, 0.22, 0.26, 0.12, 0.06])
    objects = [_object(rng, str(material)) for material in materials]
    gaps = rng.exponential(log_uniform(rng, 0.03, 0.2), count) + 0.015
    starts = np.cumsum(gaps) - gaps[0]
    starts = starts[starts < 2.8]
    total = np.zeros(samples(starts[-1] + 0.9))
    for start in starts:
        frequencies, decays, amplitudes = objects[rng.integers(len(objects))]
        n = samples(min(0.9, 6.0 * float(decays.max())))
        where = amplitudes * rng.uniform(0.05, 1.0, len(amplitudes))
        clink = ringing(n, frequencies * rng.uniform(0.995, 1.005), decays * rng.uniform(0.6, 1.0), where)
        contact = rng.standard_normal(96) * np.exp(-np.arange(96) / rng.uniform(6, 30)) * rng.uniform(0.2, 1.5)
        clink[: min(96, n)] += contact[: min(96, n)]
        begin = samples(start + 0.001)
        end = min(len(total), begin + n)
        total[begin:end] += log_uniform(rng, 0.12, 1.0) * clink[: end - begin]
    if rng.uniform() < 0.25:
        n = samples(rng.uniform(0.15, 0.7))
        frequencies, decays, amplitudes = objects[0]
        positions = np.sort(rng.integers(0, n, size=int(n / SAMPLE_RATE * rng.uniform(300, 1500))))
        grain = ringing(400, frequencies, np.minimum(decays, 0.006), amplitudes)
        scrape = scatter(n, positions, grain[None] * rng.uniform(0.0, 0.3, (len(positions), 1)))
        scrape += 0.05 * shaped_noise(rng, n, [(800.0, -20.0), (3000.0, 0.0), (8000.0, -6.0)])
        scrape *= ramp(n, 0.05, 0.05) * (0.6 + 0.4 * wander(rng, n, 15.0))
        begin = int(rng.integers(0, len(total)))
        end = min(len(total), begin + n)
        total[begin:end] += 0.5 * scrape[: end - begin]
    return total
