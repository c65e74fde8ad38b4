"""Where a recording is active, how loud it is there, and stretches of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ACTIVE_FRAME_SECONDS = 0.02
ACTIVE_RANGE_DB = 40.0

_CROSSFADE_SECONDS = 0.05
_SPECTRUM_SAMPLES = 8192


@dataclass(frozen=True)
class ActivePart:
    """A stretch of a recording and its active part: the frames of 20 ms within 40 dB of its loudest one.

    `first` and `last` are the samples where the first active frame starts and the last one ends; `rms` is the
    root mean square over the active frames.
    """

    samples: np.ndarray
    first: int
    last: int
    rms: float


def active_part(samples: np.ndarray, sample_rate: int) -> ActivePart:
    """The active part of samples [N] that are not all zero."""
    frame = _frame_samples(sample_rate)
    energy, counts = _frame_energies(samples, frame)
    active = _active(energy, counts)
    where = np.flatnonzero(active)
    rms = float(np.sqrt(energy[active].sum() / counts[active].sum()))
    return ActivePart(samples, int(where[0]) * frame, min(int(where[-1] + 1) * frame, len(samples)), rms)


def random_stretch(samples: np.ndarray, n_samples: int, sample_rate: int, generator: np.random.Generator) -> ActivePart:
    """At most `n_samples` of a recording, as drawn from those stretches that hold its sound.

    These are the stretches with all its active frames where they fit, otherwise those with at least half as
    many as any stretch has.
    """
    if len(samples) <= n_samples:
        return active_part(samples, sample_rate)
    frame = _frame_samples(sample_rate)
    active = _active(*_frame_energies(samples, frame))
    whole_frames = n_samples // frame
    # active frames before each one, so that a difference counts those of a stretch
    before = np.concatenate([[0], np.cumsum(active)])
    held = before[whole_frames:] - before[: len(before) - whole_frames]
    most = held.max()
    starts = np.flatnonzero(held >= (most if most == before[-1] else 0.5 * most))
    start = min(int(starts[generator.integers(len(starts))]) * frame, len(samples) - n_samples)
    return active_part(samples[start : start + n_samples], sample_rate)


def loop(samples: np.ndarray, n_samples: int, sample_rate: int, generator: np.random.Generator) -> np.ndarray:
    """`n_samples` of a shorter recording, repeated from a random point on with crossfades of equal power."""
    fade = min(round(_CROSSFADE_SECONDS * sample_rate), len(samples) // 2)
    period = len(samples) - fade
    unit = samples[:period].copy()
    if fade:
        phase = (np.arange(fade, dtype=np.float32) + 0.5) * np.float32(0.5 * np.pi / fade)
        unit[:fade] = np.sin(phase) * samples[:fade] + np.cos(phase) * samples[period:]
    return np.resize(np.roll(unit, -int(generator.integers(period))), n_samples)


def room_gain(samples: np.ndarray, response: np.ndarray) -> float:
    """By how much a room response [L] changes the RMS of samples [N], estimated to about 1 dB.

    A response of unit energy keeps the level of white noise; a recording of hum or of an alarm may gain 5 dB
    or lose 20. The estimate weighs the power of the response with the power spectrum of the recording, for a
    small part of what the convolution would cost.
    """
    power = _power_spectrum(samples)
    power[[0, -1]] *= 0.5  # the other bands stand for two of the whole spectrum
    return float(np.sqrt(power @ _power_spectrum(response) / power.sum()))


def _power_spectrum(samples: np.ndarray) -> np.ndarray:
    """Squared magnitudes [_SPECTRUM_SAMPLES / 2 + 1], summed over blocks of samples."""
    blocks = np.pad(samples, (0, -len(samples) % _SPECTRUM_SAMPLES)).reshape(-1, _SPECTRUM_SAMPLES)
    transformed = np.fft.rfft(blocks)
    return (np.square(transformed.real) + np.square(transformed.imag)).sum(axis=0, dtype=np.float64)


def _frame_samples(sample_rate: int) -> int:
    return max(1, round(ACTIVE_FRAME_SECONDS * sample_rate))


def _frame_energies(samples: np.ndarray, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum of squares and number of samples of each frame; the last frame may be short."""
    starts = np.arange(0, len(samples), frame)
    energy = np.add.reduceat(np.square(samples, dtype=np.float64), starts)
    return energy, np.diff(np.append(starts, len(samples)))


def _active(energy: np.ndarray, counts: np.ndarray) -> np.ndarray:
    power = energy / counts
    return power >= power.max() * 10.0 ** (-ACTIVE_RANGE_DB / 10.0)
