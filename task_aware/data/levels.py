"""Where a recording is active, how loud it is there, and how a room changes its level.

All of this is computed from a recording's frame energies and power spectrum, which are measured once.
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
