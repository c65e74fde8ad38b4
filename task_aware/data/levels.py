"""Where a recording is active, how loud it is there, and how a room changes its level.

All of this is computed from the frame energies and the power spectrum of what is `audible` in a recording, which are
measured once.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

ACTIVE_FRAME_SECONDS = 0.02
ACTIVE_RANGE_DB = 40.0

#: What is below this frequency is not sound: offsets, drift, wind, footsteps that shake a microphone.
LOWEST_HERTZ = 20.0

#: The direct sound in a response is the first sample within 20 dB of the largest one (ISO 3382-1).
_DIRECT_SHARE = 0.1

#: Bins of a power spectrum.
SPECTRUM_BINS = 4097

_ACTIVE_SHARE = 10.0 ** (-ACTIVE_RANGE_DB / 10.0)


class ActivePart(NamedTuple):
    """The active part of a stretch of samples: its 20 ms frames within 40 dB of the loudest one.

    `first` and `last` are the samples, counted from the start of the stretch, at which the first active frame begins
    and the last one ends. `rms` is the root mean square over the active frames, `energy` their sum of squares.
    """

    first: int
    last: int
    rms: float
    energy: float


class Frames(NamedTuple):
    """The frame energies (sums of squares) of a recording, [ceil(n_samples / length)].

    `length` is the length of a frame in samples; the last frame may be shorter.
    """

    energies: np.ndarray
    n_samples: int
    length: int

    @classmethod
    def of(cls, samples: np.ndarray, sample_rate: int) -> Frames:
        """Computes the frame energies of samples [N]."""
        length = frame_samples(sample_rate)
        starts = np.arange(0, len(samples), length)
        energies = np.add.reduceat(np.square(samples, dtype=np.float64), starts)
        return cls(energies, len(samples), length)

    def active_part(self, start: int, n_samples: int) -> ActivePart:
        """The active part of the `n_samples` from `start` on; frames at its ends count as a whole."""
        begin = start // self.length
        end = -(-(start + n_samples) // self.length)
        energies = self.energies[begin:end]
        powers = self._powers(begin, end)
        where = (powers >= powers.max() * _ACTIVE_SHARE).nonzero()[0]
        energy = float(energies[where].sum(dtype=np.float64))
        counted = len(where) * self.length
        if where[-1] == len(self.energies) - 1 - begin:
            counted -= len(self.energies) * self.length - self.n_samples
        first = max((begin + int(where[0])) * self.length - start, 0)
        last = min((begin + int(where[-1]) + 1) * self.length - start, n_samples)
        return ActivePart(first, last, (energy / counted) ** 0.5, energy)

    def random_start(self, n_samples: int, generator: np.random.Generator) -> int:
        """Draws the start of a stretch of `n_samples` that holds the sound of a longer recording.

        The stretches to choose from are those with all active frames if these fit into `n_samples`, otherwise those
        with at least half as many as the stretch that has most.
        """
        powers = self._powers(0, len(self.energies))
        # the number of active frames before each frame, so that a difference counts those of a stretch
        before = np.zeros(len(powers) + 1, dtype=np.int64)
        np.cumsum(powers >= powers.max() * _ACTIVE_SHARE, out=before[1:])
        whole_frames = n_samples // self.length
        held = before[whole_frames:] - before[: len(before) - whole_frames]
        most = held.max()
        starts = (held >= (most if most == before[-1] else 0.5 * most)).nonzero()[0]
        return min(int(starts[generator.integers(len(starts))]) * self.length, self.n_samples - n_samples)

    def looped_rms(self, start: int, period: int, n_samples: int) -> float:
        """RMS over the active part of `n_samples` that loop the first `period` samples, beginning at `start`."""
        powers = self._powers(0, len(self.energies))
        powers = powers[np.arange(start, start + n_samples, self.length) % period // self.length]
        return float(powers[powers >= powers.max() * _ACTIVE_SHARE].mean(dtype=np.float64)) ** 0.5

    def _powers(self, begin: int, end: int) -> np.ndarray:
        """The mean squares of the frames from `begin` to `end`."""
        powers = self.energies[begin:end] / self.length
        if end == len(self.energies):
            powers[-1] *= self.length / (self.n_samples - (end - 1) * self.length)
        return powers


def frame_samples(sample_rate: int) -> int:
    """Number of samples in a frame of 20 ms."""
    return max(1, round(ACTIVE_FRAME_SECONDS * sample_rate))


def active_part(samples: np.ndarray, sample_rate: int) -> ActivePart:
    """The active part of samples [N] that are not all zero."""
    return Frames.of(samples, sample_rate).active_part(0, len(samples))


def audible(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Samples [N] without what is below 20 Hz, as float64: a filter of 12 dB per octave that begins at rest."""
    from scipy.signal import sosfilt  # slow to import

    return sosfilt(_high_pass(sample_rate), np.asarray(samples, dtype=np.float64))


@cache
def _high_pass(sample_rate: int) -> np.ndarray:
    from scipy.signal import butter

    return butter(2, LOWEST_HERTZ, "highpass", fs=sample_rate, output="sos")


def constant_offset(samples: np.ndarray, sample_rate: int) -> float:
    """The constant offset of samples [N]; 0.0 if it may be chance, or would nowhere count as active sound.

    It is the mean of the samples or the median of the means of their 20 ms frames, whichever is smaller: the mean alone
    would take an offset from a short low sound between silences, and the median one from a long low sound.
    """
    length = frame_samples(sample_rate)
    starts = np.arange(0, len(samples), length)
    sums = np.add.reduceat(samples, starts, dtype=np.float64)
    means = sums / np.diff(starts, append=len(samples))
    offset = float(min(sums.sum() / len(samples), np.median(means), key=abs))
    error = max(np.std(part, dtype=np.float64) / len(part) ** 0.5 for part in (means, samples))
    loudest = Frames.of(audible(samples - offset, sample_rate), sample_rate).energies.max() / length
    return offset if offset**2 >= max(_ACTIVE_SHARE * loudest, (4 * error) ** 2) else 0.0


def direct_sound(response: np.ndarray) -> int:
    """The sample of a room impulse response [N] at which the direct sound begins."""
    magnitude = np.abs(response)
    return int((magnitude >= _DIRECT_SHARE * magnitude.max()).argmax())


def power_spectrum(samples: np.ndarray) -> np.ndarray:
    """Power of samples [N] in SPECTRUM_BINS bands from 0 to half the sample rate, divided by its mean."""
    block = 2 * (SPECTRUM_BINS - 1)
    blocks = np.pad(samples, (0, -len(samples) % block)).reshape(-1, block)
    transformed = np.fft.rfft(blocks)
    power = (np.square(transformed.real) + np.square(transformed.imag)).sum(axis=0, dtype=np.float64)
    return power / power.mean()


def room_gain(sound: np.ndarray, response: np.ndarray) -> float:
    """Estimates the factor by which a room impulse response of unit energy changes the RMS of a sound.

    Both are given as power spectra. Such a response leaves the level of white noise unchanged; a hum or an alarm may
    gain 5 dB or lose 20 dB. The estimate is accurate to about 1 dB.
    """
    return float(sound @ response / len(sound)) ** 0.5
