"""Vocal sounds: Speech, Dog, Cat. Moving formants filter an oscillator and breath noise."""

from __future__ import annotations

import numpy as np

from task_aware.synthesis.signals import (
    HOP,
    SAMPLE_RATE,
    Array,
    bin_frequencies,
    filter_over_time,
    formants,
    frame_count,
    log_uniform,
    oscillator,
    ramp,
    samples,
    shaped_noise,
    wander,
)

_VOWELS = np.array(
    [
        (280, 2250, 2900),
        (400, 2000, 2600),
        (550, 1800, 2500),
        (660, 1700, 2400),
        (750, 1300, 2500),
        (620, 1200, 2500),
        (550, 900, 2450),
        (400, 800, 2400),
        (320, 800, 2300),
        (500, 1450, 2450),
    ],
    dtype=np.float64,
)
"""First three formants of an adult man's vowels, in Hz."""


def _smooth(track: Array, width: int) -> Array:
    """Moving average over `width` frames along the first axis, with the edge values repeated."""
    padded = np.concatenate(
        [np.repeat(track[:1], width // 2, 0), track, np.repeat(track[-1:], width - 1 - width // 2, 0)]
    )
    total = np.cumsum(np.concatenate([np.zeros_like(padded[:1]), padded]), axis=0)
    return (total[width:] - total[:-width]) / width


def _fit(track: Array, frames: int) -> Array:
    """Cuts a track to `frames` frames, or extends it with its last value."""
    return track[np.minimum(np.arange(frames), len(track) - 1)]


def _throat(signal: Array, centres: Array, relative_bandwidth: float) -> Array:
    """Filters a signal by formants with centres `[frames, K]` in Hz; the last frame is held to the end.

    The further, evenly spaced resonances of a tube are added above them; otherwise no energy would be left there.
    """
    centres = _fit(centres, frame_count(len(signal)))
    last = float(centres[:, -1].mean())
    spacing = last / (centres.shape[1] - 0.5)
    higher = np.arange(last + spacing, 14000.0, spacing)[None]
    response = formants(centres, 50.0 + relative_bandwidth * centres) * formants(higher, 0.14 * higher)
    return filter_over_time(signal, response)


def _syllables(rng: np.random.Generator, seconds: float) -> tuple[Array, Array]:
    """Tracks of an utterance, every 8 ms: voice, breath, friction and its centre `[T, 4]`; formants `[T, 3]`."""
    rate = rng.uniform(2.8, 6.0)
    controls: list[tuple[float, float, float, float]] = []
    targets: list[Array] = []

    def hold(duration: float, voice: float, breath: float, friction: float, centre: float, formant: Array) -> None:
        count = max(1, round(duration * SAMPLE_RATE / HOP))
        controls.extend([(voice, breath, friction, centre)] * count)
        targets.extend([formant] * count)

    vowel = _VOWELS[rng.integers(len(_VOWELS))]
    since_pause = 0
    while len(controls) * HOP < seconds * SAMPLE_RATE:
        following = _VOWELS[rng.integers(len(_VOWELS))]
        loud = rng.uniform(0.45, 1.0)
        kind = rng.choice(["fricative", "plosive", "nasal", "approximant", "none"], p=[0.24, 0.28, 0.18, 0.15, 0.15])
        if kind == "fricative":
            voiced = rng.uniform(0.1, 0.3) if rng.uniform() < 0.35 else 0.0
            centre = log_uniform(rng, 1800.0, 6800.0)
            hold(rng.uniform(0.05, 0.14), voiced, 0.0, rng.uniform(0.06, 0.35), centre, following)
        elif kind == "plosive":
            hold(rng.uniform(0.03, 0.08), 0.04 if rng.uniform() < 0.4 else 0.0, 0.0, 0.0, 3000.0, vowel)
            hold(0.012, 0.0, 0.1, rng.uniform(0.2, 0.6), log_uniform(rng, 700.0, 4500.0), following)
            hold(rng.uniform(0.0, 0.05), 0.0, 0.15, 0.05, 3000.0, following)
        elif kind == "nasal":
            hold(rng.uniform(0.04, 0.1), 0.25, 0.0, 0.0, 3000.0, np.array([260.0, 1100.0, 2200.0]))
        elif kind == "approximant":
            hold(
                rng.uniform(0.03, 0.08),
                0.45,
                0.0,
                0.0,
                3000.0,
                0.5 * following + np.array([150.0, 500.0, 1000.0]),
            )
        length = rng.uniform(0.5, 1.0) / rate
        hold(length * 0.7, loud, 0.03, 0.0, 3000.0, following)
        vowel = _VOWELS[rng.integers(len(_VOWELS))] if rng.uniform() < 0.3 else following
        hold(length * 0.3, 0.8 * loud, 0.03, 0.0, 3000.0, vowel)
        since_pause += 1
        if since_pause > 2 and rng.uniform() < 0.16:
            hold(rng.uniform(0.12, 0.4), 0.0, 0.0, 0.0, 3000.0, vowel)
            since_pause = 0
    return np.array(controls), np.array(targets)


def speech(rng: np.random.Generator) -> Array:
    """0.5 to 6 s of random syllables by a man, a woman or a child; spoken, called out or whispered."""
    controls, targets = _syllables(rng, log_uniform(rng, 0.5, 6.0))
    n = len(controls) * HOP
    speaker = rng.choice(["man", "woman", "child"], p=[0.42, 0.42, 0.16])
    pitch, tract = {
        "man": (rng.uniform(80, 155), rng.uniform(0.92, 1.08)),
        "woman": (rng.uniform(150, 250), rng.uniform(1.08, 1.22)),
        "child": (rng.uniform(230, 380), rng.uniform(1.2, 1.45)),
    }[str(speaker)]
    manner = rng.choice(["spoken", "called", "whispered"], p=[0.8, 0.14, 0.06])
    if manner == "called":
        pitch *= rng.uniform(1.3, 1.8)

    time = np.arange(n)
    tracks = np.stack([np.interp(time, np.arange(len(controls)) * HOP, _smooth(controls[:, i], 4)) for i in range(3)])
    melody = 2.0 ** (wander(rng, n, rng.uniform(1.5, 3.5)) * rng.uniform(0.1, 0.45))
    fall = np.linspace(1.1, 0.85, n)
    jitter = 1.0 + 0.012 * wander(rng, n, 60.0)
    tilt = rng.uniform(0.9, 1.3) if manner == "called" else rng.uniform(1.1, 1.8)
    glottis = oscillator(rng, pitch * melody * fall * jitter, np.arange(1, 120, dtype=np.float64) ** -tilt)
    noise = rng.standard_normal(n)
    hoarse = rng.uniform(0.01, 0.12)
    if manner == "whispered":
        excitation = 0.4 * (tracks[0] + tracks[1]) * noise
    else:
        excitation = tracks[0] * (glottis + hoarse * noise) + tracks[1] * noise

    fourth = rng.uniform(3300, 3800, size=(1, 1)).repeat(len(targets), 0)
    moving = _smooth(np.concatenate([targets, fourth], axis=1), 7) * tract
    spoken = _throat(excitation, np.minimum(moving, 7000.0), rng.uniform(0.05, 0.09))

    octaves = (
        np.log2(np.maximum(bin_frequencies(), 30.0))[None]
        - np.log2(_fit(_smooth(controls[:, 3], 3), frame_count(n)))[:, None]
    )
    spread = np.where(octaves > 0, rng.uniform(0.4, 1.0), rng.uniform(0.2, 0.4))
    friction = filter_over_time(tracks[2] * rng.standard_normal(n), np.exp(-0.5 * np.square(octaves / spread)))
    return spoken + friction * rng.uniform(0.4, 1.5)


def _bark(rng: np.random.Generator, seconds: float, pitch: float, tract: float, rough: float) -> Array:
    n = samples(seconds)
    time = np.linspace(0.0, 1.0, n)
    top = rng.uniform(0.15, 0.45)
    arch = np.where(time < top, time / top, np.maximum(0.0, 1.0 - (time - top) / (1.0 - top)))
    frequency = pitch * (1.0 + rng.uniform(0.15, 0.7) * np.sin(0.5 * np.pi * arch) + 0.04 * wander(rng, n, 90.0))
    growl = 1.0 + rough * wander(rng, n, rng.uniform(60.0, 160.0))
    throat = oscillator(rng, frequency, np.arange(1, 60, dtype=np.float64) ** -rng.uniform(0.3, 0.9)) * growl
    excitation = throat + rng.uniform(0.3, 1.0) * rough * rng.standard_normal(n)
    mouth = 0.75 + 0.35 * np.sin(np.pi * np.linspace(0.1, 0.9, max(2, n // HOP)))
    centres = (
        tract * mouth[:, None] * np.array([[rng.uniform(550, 850), rng.uniform(1300, 1800), rng.uniform(2500, 3300)]])
    )
    envelope = (
        (1.0 - np.exp(-time * seconds / 0.008)) * np.exp(-3.0 * np.maximum(0.0, time - top)) * ramp(n, 0.004, 0.05)
    )
    return _throat(excitation, centres, 0.16) * envelope


def dog(rng: np.random.Generator) -> Array:
    """One bark or a series of up to eight, sometimes after a growl; occasionally a howl. Up to 4 s."""
    size = rng.uniform()
    pitch = 700.0 * 0.2**size * rng.uniform(0.8, 1.25)
    tract = 1.5 * 0.5**size
    parts: list[Array] = []
    if rng.uniform() < 0.1:
        n = samples(rng.uniform(0.6, 2.0))
        glide = (
            1.0
            + rng.uniform(0.1, 0.5) * np.sin(np.pi * np.linspace(0, rng.uniform(0.8, 1.4), n))
            + 0.01 * wander(rng, n, 20)
        )
        howl = oscillator(rng, pitch * 1.2 * glide, np.arange(1, 20, dtype=np.float64) ** -1.6)
        centres = tract * np.array([[700.0, 1300.0, 2700.0]])
        return _throat(howl + 0.05 * rng.standard_normal(n), centres, 0.12) * ramp(n, 0.15, 0.25)
    if rng.uniform() < 0.15:
        n = samples(rng.uniform(0.4, 1.3))
        growl = oscillator(rng, 0.25 * pitch * (1 + 0.15 * wander(rng, n, 25.0)), np.ones(80))
        growl = growl * (1.0 + 0.6 * wander(rng, n, 40.0)) + 0.4 * rng.standard_normal(n)
        parts.append(0.25 * _throat(growl, tract * np.array([[500.0, 1100.0, 2400.0]]), 0.2) * ramp(n, 0.1, 0.1))
    count = 1 if rng.uniform() < 0.3 else int(rng.integers(2, 9))
    seconds, gap, rough = rng.uniform(0.09, 0.32), log_uniform(rng, 0.08, 0.4), rng.uniform(0.2, 0.9)
    for _ in range(count):
        parts.append(
            _bark(rng, seconds * rng.uniform(0.75, 1.3), pitch * rng.uniform(0.9, 1.12), tract, rough)
            * rng.uniform(0.6, 1.0)
        )
        parts.append(np.zeros(samples(gap * rng.uniform(0.6, 1.5))))
    return np.concatenate(parts[:-1])[: samples(4.0)]


def _meow(rng: np.random.Generator, seconds: float, pitch: float, tract: float) -> Array:
    n = samples(seconds)
    time = np.linspace(0.0, 1.0, n)
    top = rng.uniform(0.2, 0.6)
    arch = np.sin(0.5 * np.pi * np.where(time < top, time / top, (1.0 - time) / (1.0 - top)))
    frequency = pitch * (1.0 + rng.uniform(0.05, 0.55) * arch - rng.uniform(0.0, 0.2) * time)
    frequency *= (
        1.0
        + rng.uniform(0.0, 0.02) * np.sin(2 * np.pi * rng.uniform(5, 9) * seconds * time)
        + 0.008 * wander(rng, n, 40)
    )
    throat = oscillator(rng, frequency, np.arange(1, 30, dtype=np.float64) ** -rng.uniform(0.5, 1.2))
    throat = throat * (1.0 + rng.uniform(0.0, 0.3) * wander(rng, n, 50.0)) + rng.uniform(
        0.02, 0.15
    ) * rng.standard_normal(n)
    frames = np.linspace(0.0, 1.0, max(2, n // HOP))
    mouth = np.interp(frames, [0.0, top, 1.0], [rng.uniform(0.1, 0.5), 1.0, rng.uniform(0.1, 0.5)])[:, None]
    shut, wide = np.array([[600.0, 2300.0, 3500.0]]), np.array([[1350.0, 2000.0, 3900.0]])
    if rng.uniform() < 0.4:
        shut = np.array([[550.0, 1100.0, 3000.0]])
    envelope = (0.25 + 0.75 * np.interp(time, [0.0, top, 1.0], [0.2, 1.0, 0.3])) * ramp(n, 0.05, 0.15 * seconds)
    return _throat(throat, tract * (shut + mouth * (wide - shut)), 0.1) * envelope


def cat(rng: np.random.Generator) -> Array:
    """One to three meows, a long yowl, or a hiss. 0.3 to 3 s."""
    pitch, tract = log_uniform(rng, 330.0, 950.0), rng.uniform(0.85, 1.2)
    kind = rng.uniform()
    if kind < 0.07:
        n = samples(rng.uniform(0.4, 1.3))
        spectrum = [(300.0, -30.0), (1500.0, -6.0), (3500.0, 0.0), (8000.0, -10.0)]
        return shaped_noise(rng, n, spectrum) * ramp(n, 0.06, 0.3) * (1.0 + 0.3 * wander(rng, n, 12.0))
    if kind < 0.2:
        return _meow(rng, rng.uniform(1.3, 2.8), pitch * 0.8, tract)
    parts: list[Array] = []
    for _ in range(int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))):
        parts.append(_meow(rng, rng.uniform(0.3, 1.0), pitch * rng.uniform(0.92, 1.1), tract) * rng.uniform(0.6, 1.0))
        parts.append(np.zeros(samples(rng.uniform(0.1, 0.35))))
    return np.concatenate(parts[:-1])[: samples(3.5)]
