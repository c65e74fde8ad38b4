"""What a separator finds: its sources, what the detector hears in them, and what it makes of both."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from task_aware.models.detector import Detection


class Separation(NamedTuple):
    """Estimated sources as linear mel `[B, S, F, T]`, and as the detector hears them.

    That is its scaled log-mel features, of the same shape, or the waveforms `[B, S, N]` for a `WaveformDetector`.
    """

    mel: Tensor
    features: Tensor


class SourceDetection(NamedTuple):
    """A detector's output per source: frame `[B, S, T', C]`, clip `[B, S, C]`, activations each `[B * S, ...]`."""

    frame: Tensor
    clip: Tensor
    activations: list[Tensor]


class OwnDetection(NamedTuple):
    """Probabilities of each asked class in its own sources, frame `[B, K, T']` and clip `[B, K]`; of all in all."""

    frame: Tensor
    clip: Tensor
    sources: SourceDetection


class Analysis(NamedTuple):
    """What a separator finds in B mixtures.

    Attributes:
        alone: the detector's answer for the mixtures.
        separation: the K sources that were separated.
        sources: the detector's answer for each source.
        merged: frame probabilities of the mixtures and their sources together, `[B, T', C]`.
        asked: the source that each row holds, int64 `[B, K]`, as an index of `source_names`.
    """

    alone: Detection
    separation: Separation
    sources: SourceDetection
    merged: Tensor
    asked: Tensor

    def own_probabilities(self, slots: int) -> Tensor:
        """Of sources of classes, `slots` for each: the largest probability of the class in each row, `[B, K]`."""
        return self.sources.frame.amax(2).gather(2, (self.asked // slots)[..., None])[..., 0]

    def all_sources(self, of_rows: Tensor, count: int) -> Tensor:
        """Puts rows `[B, K, ...]` in the order of the `count` sources; zeros for those that were not separated."""
        index = self.asked.reshape(*self.asked.shape, *[1] * (of_rows.dim() - 2)).expand_as(of_rows)
        shape = (of_rows.shape[0], count, *of_rows.shape[2:])
        return of_rows.new_zeros(shape).scatter(1, index, of_rows)
