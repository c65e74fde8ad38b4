"""The recorded clips of a split as an endless stream, in which broken recordings are left out."""

from __future__ import annotations

import logging

import numpy as np

from task_aware.base.errors import DataError
from task_aware.data.audio import read_audio
from task_aware.data.desed import Clip, Split

_log = logging.getLogger(__name__)


def fit_length(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    """Cuts or zero-pads `[N]` to `n_samples`."""
    return np.pad(waveform[:n_samples], (0, max(0, n_samples - len(waveform))))


class ClipStream:
    """The clips of a split in an endless order that (seed, position) determine: one shuffle per pass.

    A broken recording is named once and the next clip taken in its place; once more than `max_broken` of the split
    are broken, `DataError`.
    """

    def __init__(self, split: Split, seed: int, *, sample_rate: int, n_samples: int, max_broken: float = 0.1) -> None:
        if not split.clips:
            raise DataError(f"{split.metadata} names no clip whose recording is there; training needs at least one")
        self.split = split
        self.seed = seed
        self.sample_rate = sample_rate
        self.n_samples = n_samples
        self.max_broken = max_broken
        self.broken: dict[str, str] = {}

    def read(self, position: int) -> tuple[Clip, np.ndarray]:
        """The clip at `position` of the endless order and its waveform `[n_samples]`."""
        n_clips = len(self.split.clips)
        while True:
            turn, place = divmod(position, n_clips)
            clip = self.split.clips[np.random.default_rng([self.seed, turn]).permutation(n_clips)[place]]
            if str(clip.path) not in self.broken:
                try:
                    return clip, fit_length(read_audio(clip.path, self.sample_rate), self.n_samples)
                except DataError as error:
                    self._reject(clip, error)
            position += 1

    def _reject(self, clip: Clip, error: DataError) -> None:
        self.broken[str(clip.path)] = str(error)
        _log.warning("left out of training: %s", error)
        if len(self.broken) > self.max_broken * len(self.split.clips):
            raise DataError(
                f"{len(self.broken)} of the {len(self.split.clips)} clips in {self.split.metadata} are broken, more "
                f"than the {self.max_broken:.0%} that training leaves out; the last one: {error}"
            ) from error
