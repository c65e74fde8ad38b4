"""Room impulse responses: image sources in a shoebox for the early reflections, decaying noise for the rest.

Walls absorb more at high frequencies, so both parts are made in octave-wide bands that sum to one. The noise takes
over at the level of the last image sources and decays by 60 dB in the band's reverberation time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from task_aware.synthesis.signals import SAMPLE_RATE, Array, fast_length

SPEED_OF_SOUND = 343.0
LENGTH = SAMPLE_RATE // 2
"""Samples of an impulse response (0.5 s); the direct sound arrives 1 ms after its start."""
_DIRECT = SAMPLE_RATE // 1000
_MIXING = int(0.055 * SAMPLE_RATE)
"""Samples after the direct sound that image sources cover; noise takes over around here."""
_CENTRES = np.array([250.0, 500.0, 1000.0, 2000.0, 4000.0])
_TAPS = 16


@dataclass(frozen=True)
class Room:
    """A shoebox room: size `[3]` in m, reverberation time per band `[5]` in s, microphone position `[3]` in m."""

    size: Array
    decay: Array
    microphone: Array


def random_room(rng: np.random.Generator) -> Room:
    """Draws a kitchen, a bathroom or a living room: 6 to 50 m², reverberation time of 0.2 to 0.6 s at 1 kHz."""
    size = np.array([rng.uniform(2.4, 7.5), rng.uniform(2.2, 6.0), rng.uniform(2.3, 3.2)])
    at_1k = rng.uniform(0.2, 0.6)
    decay = at_1k * 2.0 ** (np.array([0.2, 0.1, 0.0, -0.15, -0.4]) * rng.uniform(0.3, 1.6) + rng.uniform(-0.1, 0.1, 5))
    return Room(size, np.clip(decay, 0.12, 0.7), size * rng.uniform(0.25, 0.75, 3))


def _band_masks(n: int) -> Array:
    """Raised-cosine octave bands `[5, bins]` that sum to one from 0 Hz to the Nyquist frequency."""
    octave = np.log2(np.maximum(np.fft.rfftfreq(n, 1.0 / SAMPLE_RATE), 1.0) / _CENTRES[0])
    octave = np.clip(octave, 0.0, len(_CENTRES) - 1.0)
    distance = np.abs(octave[None] - np.arange(len(_CENTRES))[:, None])
    return 0.5 + 0.5 * np.cos(np.pi * np.minimum(distance, 1.0))


def _images(room: Room, source: Array, reach: float) -> tuple[Array, Array]:
    """Distances `[K]` (m) and reflection counts `[K]` of the image sources within `reach` metres."""
    axes = []
    for size, position, microphone in zip(room.size, source, room.microphone, strict=True):
        order = int(reach / (2.0 * size)) + 2
        k = np.arange(-order, order + 1)
        offsets = np.concatenate([2.0 * k * size + position, 2.0 * k * size - position]) - microphone
        bounces = np.concatenate([np.abs(2 * k), np.abs(2 * k - 1)])
        near = np.abs(offsets) < reach
        axes.append((offsets[near], bounces[near]))
    (x, bx), (y, by), (z, bz) = axes
    squared = (x**2)[:, None, None] + (y**2)[None, :, None] + (z**2)[None, None, :]
    counts = bx[:, None, None] + by[None, :, None] + bz[None, None, :]
    inside = squared < reach**2
    return np.sqrt(squared[inside]), counts[inside].astype(np.float64)


def impulse_response(rng: np.random.Generator, room: Room) -> Array:
    """Computes the response `[LENGTH]`, of peak 0.95, from a random position at least 0.6 m from the microphone."""
    source = room.microphone
    while np.linalg.norm(source - room.microphone) < 0.6:
        source = room.size * rng.uniform(0.1, 0.9, 3)
    direct = float(np.linalg.norm(source - room.microphone))
    reach = direct + _MIXING * SPEED_OF_SOUND / SAMPLE_RATE
    distances, bounces = _images(room, source, reach)

    volume, surface = float(np.prod(room.size)), 2.0 * float(np.sum(room.size * np.roll(room.size, 1)))
    absorption = 1.0 - np.exp(-24.0 * np.log(10.0) * volume / (SPEED_OF_SOUND * surface * room.decay))  # Eyring
    amplitudes = np.sqrt(1.0 - absorption)[:, None] ** bounces / distances * direct

    delays = (distances - direct) * SAMPLE_RATE / SPEED_OF_SOUND + _DIRECT
    whole = np.floor(delays).astype(np.int64)
    offsets = np.arange(1 - _TAPS // 2, 1 + _TAPS // 2)
    distance = offsets[None] - (delays - whole)[:, None]
    kernel = np.sinc(distance) * np.square(np.cos(np.pi * distance / (_TAPS + 1)))
    index = (whole[:, None] + offsets).clip(0, LENGTH - 1)

    time = (np.arange(LENGTH) - _DIRECT) / SAMPLE_RATE
    start = _DIRECT + _MIXING
    fade_in = np.clip((np.arange(LENGTH) - start + 320) / 320.0, 0.0, 1.0)
    size = fast_length(2 * LENGTH)
    masks = _band_masks(size)
    total = np.zeros(LENGTH)
    for band, decay in enumerate(room.decay):
        weights = amplitudes[band][:, None] * kernel
        early = np.bincount(index.ravel(), weights=weights.ravel(), minlength=LENGTH)[:LENGTH]
        level = np.sqrt(np.mean(np.square(early[start - 480 : start - 160])))
        slope = np.log(1000.0) / decay
        late = (
            level
            * rng.standard_normal(LENGTH)
            * np.exp(-slope * (time - (_MIXING - 320) / SAMPLE_RATE))
            * np.sqrt(fade_in)
        )
        early = early * np.sqrt(1.0 - fade_in)
        total += np.fft.irfft(np.fft.rfft(early + late, size) * masks[band], size)[:LENGTH]
    total *= np.clip((LENGTH - np.arange(LENGTH)) / 800.0, 0.0, 1.0)
    return 0.95 * total / np.abs(total).max()


def reverberation_time(response: Array) -> float:
    """T20 in seconds: three times the time in which the backward-integrated energy falls from -5 to -25 dB."""
    energy = np.cumsum(np.square(response[::-1]))[::-1]
    level = 10.0 * np.log10(energy / energy[0] + 1e-12)
    first, last = int(np.argmax(level < -5.0)), int(np.argmax(level < -25.0))
    return 3.0 * (last - first) / SAMPLE_RATE
