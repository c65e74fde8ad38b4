"""Joins the results of a recording's windows by cross-fading."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from task_aware import ops
from task_aware.inference.windows import Window, Windowing


class OverlapAdd:
    """Joins overlapping pieces of a signal, whose last axis is time, by cross-fading.

    The result is the weighted mean of the pieces at each point. A piece's weight is the distance to its nearer end, up
    to `overlap`; a single piece is returned unchanged.
    """

    def __init__(self, overlap: int) -> None:
        self.overlap = overlap
        self._begin = 0
        self._sum: np.ndarray | None = None  # float64, so that weighting does not change a single piece
        self._weight = np.empty(0)

    def add(self, begin: int, piece: np.ndarray) -> np.ndarray:
        """Adds a piece `[..., n]` that begins at `begin`, in order; returns the samples before it, which are final."""
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
        """Returns the remaining samples."""
        return self._finished(len(self._weight))

    def _finished(self, n: int) -> np.ndarray:
        assert self._sum is not None, "nothing was added"
        done = (self._sum[..., :n] / self._weight[:n]).astype(np.float32)
        self._sum, self._weight, self._begin = self._sum[..., n:], self._weight[n:], self._begin + n
        return done


class Track:
    """A signal `[..., T]` that grows at its end.

    Its pieces are copied into one array: kept alone among the large buffers of the networks, they would pin down the
    memory between them, so that it could be neither given back nor used for larger ones.
    """

    def __init__(self) -> None:
        self._kept = np.empty(0, dtype=np.float32)
        self._length = 0

    def append(self, piece: np.ndarray) -> None:
        """Adds the next piece `[..., n]`."""
        end = self._length + piece.shape[-1]
        if not self._length or end > self._kept.shape[-1]:
            kept = self.array()
            self._kept = np.empty((*piece.shape[:-1], max(2 * end, 1 << 12)), dtype=np.float32)
            self._kept[..., : self._length] = kept
        self._kept[..., self._length : end] = piece
        self._length = end

    def array(self) -> np.ndarray:
        """All of it so far."""
        return self._kept[..., : self._length]


@dataclass(frozen=True)
class Answer:
    """Results of one window: probabilities `[C, T']`, of a separator also those of its detector alone, and, on
    request, the sources' waveforms `[S, n]` and mel `[S, F, T]`; of sources of classes also the largest probability of
    the class in each, `[S]`."""

    window: Window
    frame: np.ndarray
    waveform: np.ndarray | None = None
    mel: Tensor | None = None
    alone: np.ndarray | None = None
    heard: np.ndarray | None = None


class Join:
    """Joins the results of one recording's windows.

    Args:
        windowing: how the windows were cut.
        slots: of sources of classes, the number for each class, within which their order may differ from window to
            window; None for free sources, which may have any order.

    Attributes:
        heard: of sources of classes, the largest probability of the class in each so far, `[S]`; else None.
    """

    def __init__(self, windowing: Windowing, *, slots: int | None = None) -> None:
        self.windowing = windowing
        self.heard: np.ndarray | None = None
        self._slots = slots
        self._frames = OverlapAdd(windowing.overlap // windowing.pooling)  # of one row, or two with the detector alone
        self._joined = Track()
        self._waveforms = OverlapAdd(windowing.overlap * windowing.hop)
        self._last: tuple[int, Tensor] | None = None

    def add(self, answer: Answer) -> list[np.ndarray]:
        """Adds the results of the next window; returns the source samples that have become final."""
        first = answer.window.first
        frames = np.stack([answer.frame, *([] if answer.alone is None else [answer.alone])])
        self._joined.append(self._frames.add(first // self.windowing.pooling, frames))
        if answer.waveform is None or answer.mel is None:
            return []
        waveform, mel, heard = answer.waveform, answer.mel, answer.heard
        if (rows := self._order(first, mel)) is not None:
            mel = mel[rows]
            waveform = waveform[[*rows, *range(len(rows), len(waveform))]]  # what is left of the recording stays last
            heard = None if heard is None else heard[rows]
        self._last = first, mel
        if heard is not None:
            self.heard = heard if self.heard is None else np.maximum(self.heard, heard)
        done = [self._waveforms.add(first * self.windowing.hop, waveform)]
        return done + ([self._waveforms.finish()] if answer.window.last else [])

    def _order(self, first: int, mel: Tensor) -> list[int] | None:
        """The order in which sources `[S, F, T]` match those of the previous window best, where the two overlap.

        None if there is nothing to reorder.
        """
        if self._last is None or self._slots == 1:
            return None
        last_first, last_mel = self._last
        shared = last_first + last_mel.shape[-1] - first
        if shared <= 0:
            return None
        size = self._slots or len(mel)
        now, before = (x.unflatten(0, (-1, size)) for x in (mel[..., :shared], last_mel[..., -shared:]))
        order = ops.pit_loss(now, before).permutation.cpu()  # of the sources of each class, or of all
        return (order + size * torch.arange(len(order))[:, None]).flatten().tolist()

    def scores(self) -> list[np.ndarray]:
        """Frame probabilities of the whole recording, `[T', C]`: the model's and, of a separator, the detector's."""
        self._joined.append(self._frames.finish())
        return [rows.copy().T for rows in self._joined.array()]
