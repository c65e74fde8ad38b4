"""The answers of a recording's windows, cross-faded into those of the recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from task_aware import ops
from task_aware.inference.windows import Window, Windowing


class OverlapAdd:
    """Joins overlapping pieces of a signal, whose last axis is time, with weights that fade at their ends.

    The result is the mean of the pieces at each point, weighted by the distance to the nearer end of the piece up to
    `overlap`; so a single piece comes out as it went in.
    """

    def __init__(self, overlap: int) -> None:
        self.overlap = overlap
        self._begin = 0
        self._sum: np.ndarray | None = None  # float64: a single piece divided by its weights is itself again
        self._weight = np.empty(0)

    def add(self, begin: int, piece: np.ndarray) -> np.ndarray:
        """Adds a piece `[..., n]` at `begin`, not before the last one's; returns what lies before it and is final."""
        n = piece.shape[-1]
        distance = np.arange(1, n + 1)
        weight = np.minimum(np.minimum(distance, distance[::-1]) / (self.overlap + 1), 1)
        if self._sum is None:
            self._sum, self._begin = np.zeros((*piece.shape[:-1], 0)), begin
        done = self._finished(begin - self._begin)
        grow = max(0, n - len(self._weight))
        self._sum = np.pad(self._sum, [(0, 0)] * (piece.ndim - 1) + [(0, grow)])
        self._weight = np.pad(self._weight, (0, grow))
        self._sum[..., :n] += weight * piece
        self._weight[:n] += weight
        return done

    def finish(self) -> np.ndarray:
        """The rest."""
        return self._finished(len(self._weight))

    def _finished(self, n: int) -> np.ndarray:
        assert self._sum is not None, "nothing was added"
        done = (self._sum[..., :n] / self._weight[:n]).astype(np.float32)
        self._sum, self._weight, self._begin = self._sum[..., n:], self._weight[n:], self._begin + n
        return done


@dataclass(frozen=True)
class Answer:
    """Of one window: probabilities `[C, T']` and, where asked for, source waveforms `[S, n]` and mels `[S, F, T]`."""

    window: Window
    frame: np.ndarray
    waveform: np.ndarray | None = None
    mel: Tensor | None = None


class Join:
    """The answers of one recording's windows, joined."""

    def __init__(self, windowing: Windowing) -> None:
        self.windowing = windowing
        self._frames = OverlapAdd(windowing.overlap // windowing.pooling)
        self._parts: list[np.ndarray] = []
        self._waveforms = OverlapAdd(windowing.overlap * windowing.hop)
        self._last: tuple[int, Tensor] | None = None

    def add(self, answer: Answer) -> list[np.ndarray]:
        """Takes the next window's answer; returns the samples of the sources that are final by it."""
        first = answer.window.first
        self._parts.append(self._frames.add(first // self.windowing.pooling, answer.frame))
        if answer.waveform is None or answer.mel is None:
            return []
        waveform, mel = self._ordered(first, answer.waveform, answer.mel)
        self._last = first, mel
        done = [self._waveforms.add(first * self.windowing.hop, waveform)]
        return [*done, self._waveforms.finish()] if answer.window.last else done

    def _ordered(self, first: int, waveform: np.ndarray, mel: Tensor) -> tuple[np.ndarray, Tensor]:
        """The sources in the order of the last window's, as they fit best where the windows overlap."""
        if self._last is None:
            return waveform, mel
        last_first, last_mel = self._last
        shared = last_first + last_mel.shape[-1] - first
        if shared <= 0:
            return waveform, mel
        order = ops.pit_loss(mel[None, ..., :shared], last_mel[None, ..., -shared:]).permutation
        return waveform[order[0].cpu().numpy()], ops.reorder(mel[None], order)[0]

    def scores(self) -> np.ndarray:
        """Frame probabilities of the whole recording, `[T', C]`."""
        return np.concatenate([*self._parts, self._frames.finish()], axis=-1).T
