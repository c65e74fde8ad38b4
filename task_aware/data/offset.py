"""Takes the constant offset out of what a detector hears, block by block.

The lowest mel bands begin at 0 Hz, and windows leak: an offset that nobody hears reaches all bands of quiet sounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

#: The offset may change as fast as this: what is slower is taken out, and what is ten times as fast stays to 0.05 dB.
CORNER_HERTZ = 1.0

#: The offset at the start is the mean of this much, seconds: three periods of a hum of 50 Hz.
FIRST_SECONDS = 0.06


#: Samples that are filtered at once: what this takes in float64 fits into a cache.
AT_ONCE = 1 << 16


class OffsetFilter:
    """A causal high-pass of first order, the same for a live stream in chunks of any size and for a whole recording.

    The first samples are held back until there are enough of them to know the offset at the start, which would
    otherwise be a step.

    Args:
        sample_rate: samples per second.
    """

    def __init__(self, sample_rate: int) -> None:
        self._n_first = max(1, math.ceil(FIRST_SECONDS * sample_rate))
        self._held: np.ndarray | None = np.empty(0, dtype=np.float32)
        length = math.ceil(sample_rate / 16)  # of a stretch: short enough that no power of the decay is extreme
        self._powers = np.exp(-2 * math.pi * CORNER_HERTZ / sample_rate * np.arange(length + 1))
        self._begun = np.empty(0)  # the stretch that is not complete
        self._offset = 0.0  # at the end of the one before

    def __call__(self, samples: np.ndarray, *, last: bool = False) -> np.ndarray:
        """The next samples `[n]`, float32, without the offset; with `last`, all that are still held back, too."""
        if self._held is not None:
            samples = np.concatenate([self._held, samples])
            if len(samples) < self._n_first and not (last and len(samples)):
                self._held = samples
                return samples[:0]
            self._held = None
            self._offset = float(samples[: self._n_first].mean(dtype=np.float64))
        heard = np.empty(len(samples), dtype=np.float32)
        for begin in range(0, len(samples), AT_ONCE):
            piece = samples[begin : begin + AT_ONCE]
            heard[begin : begin + AT_ONCE] = piece - self._follow(piece)
        return heard

    def _follow(self, samples: np.ndarray) -> np.ndarray:
        """The offset at each of the next samples: `offset[n] = decay * offset[n - 1] + (1 - decay) * samples[n]`.

        Stretches of one length begin at the same samples however the recording comes, so rounding does not depend on
        it. Within a stretch the sum is that of samples divided by powers of the decay. SciPy has this filter in a
        module that takes a third as long to import as torch.
        """
        begun, powers = len(self._begun), self._powers
        length = len(powers) - 1
        heard = np.concatenate([self._begun, samples])
        rows = np.pad(heard, (0, -len(heard) % length)).reshape(-1, length)
        own = rows * ((1 - powers[1]) / powers[:-1])
        np.cumsum(own, axis=1, out=own)
        own *= powers[:-1]
        n_whole, decay = len(heard) // length, float(powers[-1])
        offsets = [self._offset]
        for last in own[:n_whole, -1].tolist():
            offsets.append(last + decay * offsets[-1])
        self._begun, self._offset = heard[n_whole * length :], offsets[-1]
        own += np.array(offsets[: len(rows)])[:, None] * powers[1:]
        return own.ravel()[begun : len(heard)]


def without_offset(blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
    """Yields consecutive blocks `[n]` without their constant offset; as many samples as there are."""
    remove = OffsetFilter(sample_rate)
    for block in blocks:
        yield remove(block)
    yield remove(np.empty(0, dtype=np.float32), last=True)


def remove_offset(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """A whole recording `[N]` without its constant offset, as `without_offset` yields it."""
    return OffsetFilter(sample_rate)(samples, last=True)
