"""One channel of a recording that has several: the mean of all, or one of them."""

from __future__ import annotations

import logging
from functools import lru_cache

import numpy as np

from task_aware.base.errors import RecordingError

#: A mean that lies this much below the loudest channel has lost its sound.
LOST_DB = 20.0

_log = logging.getLogger(__name__)


class Mixdown:
    """Turns consecutive blocks of samples into one channel.

    The mean cancels what is in opposite phase, and hides what is in few of many channels. `check` says so.

    Args:
        name: what the recording is called in messages.
        n_channels: number of its channels.
        channel: the channel to take, counted from 0; None takes the mean.

    Raises:
        RecordingError: there is no such channel.
    """

    def __init__(self, name: str, n_channels: int, channel: int | None) -> None:
        if channel is not None and not 0 <= channel < n_channels:
            raise RecordingError(
                f"{name} has {n_channels} channel{'s' * (n_channels > 1)}, but channel {channel} was requested; count "
                "from 0, or take the mean."
            )
        self.name = name
        self.channel = 0 if n_channels == 1 else channel
        self._n_samples = 0
        self._sums = np.zeros((2, n_channels + 1))  # of samples and their squares, in the channels and in the mean

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Samples `[n, channels]` as one channel `[n]`."""
        if self.channel is not None:
            return np.ascontiguousarray(samples[:, self.channel])
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by those who read it
            mean = samples[:, 0].copy()
            for channel in range(1, samples.shape[1]):  # many times as fast as over rows of few channels
                mean += samples[:, channel]
            mean /= samples.shape[1]
            self._n_samples += len(samples)
            for begin in range(0, len(samples), 1 << 13):  # what fits into a cache
                piece = slice(begin, begin + (1 << 13))
                signals = np.array([*samples[piece].T, mean[piece]], dtype=np.float64)
                self._sums += signals.sum(1), np.einsum("cn,cn->c", signals, signals)
        return mean

    def check(self) -> None:
        """Warns, once for a recording, if the mean of the blocks so far lies far below the loudest channel."""
        if self.channel is not None or not self._n_samples:
            return
        means, squares = self._sums / self._n_samples
        *powers, kept = np.maximum(squares - means**2, 1e-12)  # without offsets; less than -120 dB is silence
        lost = 10 * np.log10(max(powers) / kept)
        if lost >= LOST_DB:
            _warn(
                f"{self.name}: the mean of its {len(powers)} channels lies {lost:.0f} dB below channel "
                f"{int(np.argmax(powers))} (counted from 0), so that its sound is lost; choose a channel with --channel"
            )


@lru_cache(maxsize=4096)
def _warn(text: str) -> None:
    _log.warning("%s", text)
