"""Where a recording is active, how loud it is there, and what a room does to its level.

All of it is found from a recording's frame energies and power spectrum, which are measured once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ACTIVE_FRAME_SECONDS = 0.02
ACTIVE_RANGE_DB = 40.0

#: Bins of a power spectrum.
SPECTRUM_BINS = 4097

_ACTIVE_SHARE = 10.0 ** (-ACTIVE_RANGE_DB / 10.0)


class ActivePart(NamedTuple):
    """The active part of a stretch: its frames of 20 ms within 40 dB of its loudest one.

    `first` and `last` are the samples of the stretch where the first active frame starts and the last one ends; `rms`
    is the root mean square over the active frames, `energy` the sum of squares there.
    """

    first: int
    last: int
    rms: float
    energy: float


class Frames(NamedTuple):
    """The frames of a recording: the sum of squares of each, [ceil(n_samples / length)].

    `length` is that of a frame in samples; the last one may be short.
    """

    energies: np.ndarray
    n_samples: int
    length: int

    @classmethod
    def of(cls, samples: np.ndarray, sample_rate: int) -> Frames:
        """The frames of samples [N]."""
        length = frame_samples(sample_rate)
        starts = np.arange(0, len(samples), length)
        energies = np.add.reduceat(np.square(samples, dtype=np.float64), starts)
        return cls(energies, len(samples), length)

    def active_part(self, start: int, n_samples: int) -> ActivePart:
        """The active part of a stretch; a frame that it cuts counts as a whole one."""
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
        """Where `n_samples` of a longer recording start, as drawn from those stretches that hold its sound.

        These are the stretches with all its active frames where they fit, otherwise those with at least half as many
        as any stretch has.
        """
        powers = self._powers(0, len(self.energies))
        # active frames before each one, so that a difference counts those of a stretch
        before = np.zeros(len(powers) + 1, dtype=np.int64)
        np.cumsum(powers >= powers.max() * _ACTIVE_SHARE, out=before[1:])
        whole_frames = n_samples // self.length
        held = before[whole_frames:] - before[: len(before) - whole_frames]
        most = held.max()
        starts = (held >= (most if most == before[-1] else 0.5 * most)).nonzero()[0]
        return min(int(starts[generator.integers(len(starts))]) * self.length, self.n_samples - n_samples)

    def looped_rms(self, start: int, period: int, n_samples: int) -> float:
        """RMS over the active part of `n_samples` that repeat the first `period` samples, from `start` on."""
        powers = self._powers(0, len(self.energies))
        powers = powers[np.arange(start, start + n_samples, self.length) % period // self.length]
        return float(powers[powers >= powers.max() * _ACTIVE_SHARE].mean(dtype=np.float64)) ** 0.5

    def _powers(self, begin: int, end: int) -> np.ndarray:
        """The mean squares of some frames."""
        powers = self.energies[begin:end] / self.length
        if end == len(self.energies):
            powers[-1] *= self.length / (self.n_samples - (end - 1) * self.length)
        return powers


def frame_samples(sample_rate: int) -> int:
    """Samples of a frame of 20 ms."""
    return max(1, round(ACTIVE_FRAME_SECONDS * sample_rate))


def active_part(samples: np.ndarray, sample_rate: int) -> ActivePart:
    """The active part of samples [N] that are not all zero."""
    return Frames.of(samples, sample_rate).active_part(0, len(samples))


def power_spectrum(samples: np.ndarray) -> np.ndarray:
    """Power of samples [N] in SPECTRUM_BINS bands from 0 to half the sample rate, as shares of their mean."""
    block = 2 * (SPECTRUM_BINS - 1)
    blocks = np.pad(samples, (0, -len(samples) % block)).reshape(-1, block)
    transformed = np.fft.rfft(blocks)
    power = (np.square(transformed.real) + np.square(transformed.imag)).sum(axis=0, dtype=np.float64)
    return power / power.mean()


def room_gain(sound: np.ndarray, response: np.ndarray) -> float:
    """By how much a room response of unit energy changes the RMS of a sound, both given as power spectra.

    Such a response keeps the level of white noise; a recording of hum or of an alarm may gain 5 dB or lose 20. The
    estimate is good to about 1 dB.
    """
    return float(sound @ response / len(sound)) ** 0.5
