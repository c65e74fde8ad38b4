"""Takes the constant offset out of what a detector hears, block by block.

The lowest mel bands begin at 0 Hz, and windows leak: an offset that nobody hears reaches all bands of quiet sounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np

#: The offset may change as fast as this: what is slower is taken out, and what is ten times as fast stays to 0.05 dB.
CORNER_HERTZ = 1.0

#: The offset at the start is the mean of this much, seconds: three periods of a hum of 50 Hz.
FIRST_SECONDS = 0.06


class OffsetFilter:
    """A causal high-pass of first order, the same for a live stream in chunks of any size and for a whole recording.

    The first samples are held back until there are enough of them to know the offset at the start, which would
    otherwise be a step.

    Args:
        sample_rate: samples per second.
    """

    def __init__(self, sample_rate: int) -> None:
        from scipy.signal import lfilter  # slow to import: not before there is something to hear, nor while it is heard

        self._decay = math.exp(-2 * math.pi * CORNER_HERTZ / sample_rate)
        self._filter = partial(lfilter, [1 - self._decay], [1, -self._decay])
        self._n_first = max(1, math.ceil(FIRST_SECONDS * sample_rate))
        self._held: np.ndarray | None = np.empty(0, dtype=np.float32)
        self._state = np.zeros(1)

    def __call__(self, samples: np.ndarray, *, last: bool = False) -> np.ndarray:
        """The next samples `[n]`, float32, without the offset; with `last`, all that are still held back, too."""
        if self._held is not None:
            samples = np.concatenate([self._held, samples])
            if len(samples) < self._n_first and not (last and len(samples)):
                self._held = samples
                return samples[:0]
            self._held = None
            self._state = self._decay * samples[: self._n_first].mean(dtype=np.float64, keepdims=True)
        offset, self._state = self._filter(samples.astype(np.float64), zi=self._state)
        return (samples - offset).astype(np.float32)


def without_offset(blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
    """Yields consecutive blocks `[n]` without their constant offset; as many samples as there are."""
    remove = OffsetFilter(sample_rate)
    for block in blocks:
        yield remove(block)
    yield remove(np.empty(0, dtype=np.float32), last=True)


def remove_offset(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """A whole recording `[N]` without its constant offset, as `without_offset` yields it."""
    return OffsetFilter(sample_rate)(samples, last=True)
