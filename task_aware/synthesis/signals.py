"""Building blocks of the synthetic sounds: noise, oscillators, resonances, grains, envelopes.

All functions work on mono floating-point arrays at `SAMPLE_RATE`. Unless the name says otherwise, lengths are in
samples, frequencies in hertz and durations in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]

SAMPLE_RATE = 16000
HOP = 128
"""Samples between the frames of `filter_over_time` (8 ms)."""
_WINDOW = 512


def samples(seconds: float) -> int:
    """Length in samples, at least one."""
    return max(1, round(seconds * SAMPLE_RATE))


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draws a number that is uniformly distributed on a logarithmic scale."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def rms(signal: Array) -> float:
    return float(np.sqrt(np.mean(np.square(signal)) + 1e-20))


def decibels(value: float) -> float:
    """Amplitude factor of a level in dB."""
    return float(10.0 ** (value / 20.0))


def fast_length(n: int) -> int:
    """The smallest length of at least n with a fast Fourier transform: 2^a times 1, 3, 5, 9 or 15."""
    return min(odd << max(0, (-(-n // odd) - 1).bit_length()) for odd in (1, 3, 5, 9, 15))


def wander(rng: np.random.Generator, n: int, rate: float, low: float = -1.0, high: float = 1.0) -> Array:
    """A smooth random curve `[n]` through points drawn uniformly from [low, high], `rate` points per second."""
    count = int(n / SAMPLE_RATE * rate) + 3
    points = rng.uniform(low, high, count)
    position = rng.uniform() + np.arange(n) * (rate / SAMPLE_RATE)
    index = position.astype(np.int64)
    fraction = position - index
    fraction *= fraction * (3.0 - 2.0 * fraction)
    return points[index] * (1.0 - fraction) + points[index + 1] * fraction


def curve(points: Sequence[tuple[float, float]], frequencies: Array) -> Array:
    """Amplitude response through (hertz, dB) points, linearly interpolated on a logarithmic frequency axis."""
    hertz, level = np.array(points, dtype=np.float64).T
    return 10.0 ** (np.interp(np.log(np.maximum(frequencies, 1.0)), np.log(hertz), level) / 20.0)


def rough_curve(
    rng: np.random.Generator, points: Sequence[tuple[float, float]], jitter: float
) -> list[tuple[float, float]]:
    """Varies the points of a curve: each level by up to `jitter` dB, each frequency by up to a quarter octave."""
    return [(hertz * 2.0 ** rng.uniform(-0.25, 0.25), level + rng.uniform(-jitter, jitter)) for hertz, level in points]


def bumps(rng: np.random.Generator, frequencies: Array, count: int, low: float, high: float, gain: float) -> Array:
    """Response `[bins]` of a housing: broad resonances of up to `gain` dB between low and high Hz."""
    level = np.zeros_like(frequencies)
    octave = np.log2(np.maximum(frequencies, 1.0))
    for _ in range(count):
        centre, width = np.log2(log_uniform(rng, low, high)), rng.uniform(0.08, 0.4)
        level += rng.uniform(-0.3, 1.0) * gain * np.exp(-0.5 * np.square((octave - centre) / width))
    return 10.0 ** (level / 20.0)


def shape(signal: Array, points: Sequence[tuple[float, float]], extra: Array | None = None) -> Array:
    """Filters a signal, with zero phase, by the response through (hertz, dB) points."""
    n = len(signal)
    length = fast_length(n + SAMPLE_RATE // 20)
    response = curve(points, np.fft.rfftfreq(length, 1.0 / SAMPLE_RATE))
    if extra is not None:
        grid = np.linspace(0.0, 1.0, len(extra))
        response = response * np.interp(np.linspace(0.0, 1.0, len(response)), grid, extra)
    return np.fft.irfft(np.fft.rfft(signal, length) * response, length)[:n]


def shaped_noise(
    rng: np.random.Generator, n: int, points: Sequence[tuple[float, float]], extra: Array | None = None
) -> Array:
    """Gaussian noise `[n]` of unit RMS whose spectrum passes through (hertz, dB) points."""
    noise = shape(rng.standard_normal(n), points, extra)
    return noise / rms(noise)


def oscillator(rng: np.random.Generator, frequency: Array, amplitudes: Array) -> Array:
    """A periodic wave `[n]` of unit RMS; harmonic k has amplitudes[k-1], and there are none above 7.6 kHz.

    frequency: the fundamental frequency at every sample, `[n]` in Hz.
    """
    count = min(len(amplitudes), max(1, int(7600.0 / float(frequency.max()))))
    spectrum = np.zeros(2049, dtype=np.complex128)
    spectrum[1 : count + 1] = amplitudes[:count] * np.exp(2j * np.pi * rng.uniform(size=count))
    table = np.fft.irfft(spectrum)
    table /= rms(table)
    phase = (rng.uniform() + np.cumsum(frequency) / SAMPLE_RATE) % 1.0
    return np.interp(phase * 4096.0, np.arange(4097), np.append(table, table[0]))


def frame_count(n: int) -> int:
    """Number of frames that `filter_over_time` needs for n samples."""
    return -(-n // HOP) + _WINDOW // HOP


def bin_frequencies() -> Array:
    """Frequencies of the bins of `filter_over_time`, `[257]` in Hz."""
    return np.fft.rfftfreq(_WINDOW, 1.0 / SAMPLE_RATE)


def filter_over_time(signal: Array, response: npt.NDArray[np.complex128] | Array) -> Array:
    """Filters a signal `[n]` by a response `[frame_count(n), 257]` that changes every 8 ms."""
    n, frames = len(signal), frame_count(len(signal))
    padded = np.zeros((frames + _WINDOW // HOP - 1) * HOP)
    start = _WINDOW - HOP
    padded[start : start + n] = signal
    window = np.sin(np.pi * (np.arange(_WINDOW) + 0.5) / _WINDOW)
    view = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP]
    filtered = np.fft.irfft(np.fft.rfft(view * window, axis=1) * response[:frames], axis=1) * (window * 0.5)
    out = np.zeros((frames + _WINDOW // HOP - 1, HOP))
    for k in range(_WINDOW // HOP):
        out[k : k + frames] += filtered[:, k * HOP : (k + 1) * HOP]
    return out.reshape(-1)[start : start + n]


def formants(centres: Array, bandwidths: Array) -> npt.NDArray[np.complex128]:
    """Response `[frames, 257]` of a cascade of resonances; centres and bandwidths are `[frames, K]` in Hz."""
    frequencies = bin_frequencies()[None, :, None]
    squared = np.square(centres)[:, None, :]
    return np.prod(squared / (squared - frequencies**2 + 1j * frequencies * bandwidths[:, None, :]), axis=2)


def scatter(n: int, starts: npt.NDArray[np.int64], grains: Array) -> Array:
    """Sum `[n]` of short grains `[count, length]`, each at its start."""
    index = starts[:, None] + np.arange(grains.shape[1])
    keep = index < n
    return np.bincount(index[keep], weights=grains[keep], minlength=n)[:n].astype(np.float64)


def ringing(n: int, frequencies: Array, decays: Array, amplitudes: Array, phases: Array | float = 0.0) -> Array:
    """Sum `[n]` of struck modes a·exp(-t/decay)·sin(2πft + phase)."""
    time = np.arange(n) / SAMPLE_RATE
    rate = (2j * np.pi * frequencies - 1.0 / decays)[:, None]
    start = (amplitudes * np.exp(1j * np.asarray(phases)))[:, None]
    return np.sum((start * np.exp(rate * time)).imag, axis=0)


def ramp(n: int, attack: float, release: float) -> Array:
    """Envelope `[n]` with a raised-cosine attack and release of the given durations."""
    envelope = np.ones(n)
    rise, fall = min(samples(attack), n // 2), min(samples(release), n // 2)
    if rise > 0:
        envelope[:rise] *= 0.5 - 0.5 * np.cos(np.pi * (np.arange(rise) + 0.5) / rise)
    if fall > 0:
        envelope[n - fall :] *= 0.5 + 0.5 * np.cos(np.pi * (np.arange(fall) + 0.5) / fall)
    return envelope
