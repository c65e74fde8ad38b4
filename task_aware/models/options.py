"""What recipes and options say about the models. It is read without torch, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: How the detections in the sources are merged; `merge_sources` has the rules.
Merge = Literal["max", "average", "noisy_or", "mean", "own", "own_average"]

#: Precision of the networks: float32, or autocast to bfloat16.
Precision = Literal["32-true", "bf16-mixed"]

#: Length of the baseline's median filter, output frames.
MEDIAN_FRAMES = 7

#: The largest sizes of a recurrent network that is still worth waiting for.
LARGEST = {"rnn_cells": 1 << 14, "rnn_layers": 64}


@dataclass(frozen=True)
class CRNNConfig:
    """Sizes of the CRNN; the defaults are the baseline's (1,112,420 parameters with ten classes).

    Attributes:
        filters: output channels of each convolution block.
        pooling: (time, mel) average pooling of each block; the product of the mel factors must be the number of mel
            bands.
        rnn_cells: units per GRU direction.
        rnn_layers: number of GRU layers.
        dropout: share of activations dropped in training.
        batch_norm_momentum: weight of a new batch in the running statistics. With the baseline's 0.99 they are
            practically those of the last batch; use less with smaller batches.
        initialisation: `baseline` draws the linear maps of gates and heads from N(0, 0.01), which takes thousands of
            steps to train; `unit` preserves the variance of the activations and starts at a realistic rate of
            positive frames, for short trainings.
        clip_pooling: how frame probabilities p are pooled into clip probabilities: `attention`, as in the baseline, or
            without weights `linear_softmax`, which is `sum_t(p^2) / sum_t(p)`, or `max`.
        median_frames: length of the median filter in decoding events, output frames.
        causal: depend on past frames alone: convolutions are padded on the left in time, and the GRU is
            unidirectional.
        lookahead: delay of a causal detector's answer, output frames: how much it analyses after a frame before it
            answers for it. With 0, onsets are detected late, as the evidence for an onset follows it.
    """

    filters: tuple[int, ...] = (16, 32, 64, 128, 128, 128, 128)
    pooling: tuple[tuple[int, int], ...] = ((2, 2), (2, 2), (1, 2), (1, 2), (1, 2), (1, 2), (1, 2))
    rnn_cells: int = 128
    rnn_layers: int = 2
    dropout: float = 0.5
    batch_norm_momentum: float = 0.99
    initialisation: Literal["baseline", "unit"] = "baseline"
    clip_pooling: Literal["attention", "linear_softmax", "max"] = "attention"
    median_frames: int = MEDIAN_FRAMES
    causal: bool = False
    lookahead: int = 0

    def __post_init__(self) -> None:
        if len(self.filters) != len(self.pooling):
            raise ValueError(
                f"crnn.filters has {len(self.filters)} blocks, but crnn.pooling has {len(self.pooling)}; "
                "both must have one entry per block"
            )
        for name in ("rnn_cells", "rnn_layers"):
            if not 1 <= getattr(self, name) <= LARGEST[name]:
                raise ValueError(f"crnn.{name} is {getattr(self, name)}; give 1 to {LARGEST[name]}")
        if self.median_frames < 1:
            raise ValueError(f"crnn.median_frames is {self.median_frames}; it must be 1 (no filter) or more")
        if self.lookahead < 0 or (self.lookahead and not self.causal):
            raise ValueError(f"crnn.lookahead is {self.lookahead}; it must be 0, or with crnn.causal it may be above 0")
