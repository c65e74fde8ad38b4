"""The recorded clips of a split as an endless stream that skips broken recordings."""

from __future__ import annotations

import logging

import numpy as np

from task_aware.base.errors import DataError
from task_aware.data.desed import Clip, Split
from task_aware.data.offset import remove_offset

_log = logging.getLogger(__name__)


def fit_length(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    """Cuts or zero-pads `[N]` to `n_samples`."""
    return np.pad(waveform[:n_samples], (0, max(0, n_samples - len(waveform))))


class ClipStream:
    """An endless stream of a split's clips, shuffled anew for each pass; (seed, position) determine the clip.

    A broken recording is reported once, and the next clip replaces it. Raises DataError once more than the share
    `max_broken` of the split is broken.
    """

    def __init__(self, split: Split, seed: int, *, sample_rate: int, n_samples: int, max_broken: float = 0.1) -> None:
        if not split.clips:
            raise DataError(f"{split.metadata} names no clip whose recording exists; training needs at least one")
        self.split = split
        self.seed = seed
        self.sample_rate = sample_rate
        self.n_samples = n_samples
        self.max_broken = max_broken
        self.broken: dict[str, str] = {}

    def read(self, position: int) -> tuple[Clip, np.ndarray]:
        """The clip at `position` of the stream and its waveform `[n_samples]`."""
        n_clips = len(self.split.clips)
        while True:
            turn, place = divmod(position, n_clips)
            clip = self.split.clips[np.random.default_rng([self.seed, turn]).permutation(n_clips)[place]]
            if str(clip.path) not in self.broken:
                try:
                    return clip, fit_length(self._heard(clip), self.n_samples)
                except DataError as error:
                    self._reject(clip, error)
            position += 1

    def _heard(self, clip: Clip) -> np.ndarray:
        return remove_offset(clip.read(self.sample_rate), self.sample_rate)

    def _reject(self, clip: Clip, error: DataError) -> None:
        self.broken[str(clip.path)] = str(error)
        _log.warning("Skipped in training: %s", error)
        if len(self.broken) > self.max_broken * len(self.split.clips):
            raise DataError(
                f"{len(self.broken)} of the {len(self.split.clips)} clips in {self.split.metadata} are broken, but "
                f"training skips at most {self.max_broken:.0%}. The last one: {error}"
            ) from error
