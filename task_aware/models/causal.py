"""Layers of causal networks: they depend on past frames alone, and can process a stream chunk by chunk.

A stream runs through the same modules as a whole signal, one chunk at a time. Each layer remembers what it needs of the
chunks before.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Remembering(nn.Module):
    """A layer whose output depends on past frames.

    Attributes:
        streams: whether a call continues the signal of the previous call; otherwise each call is a new signal.
        memory: state left by the previous call; None at the beginning.
    """

    streams: bool = False
    memory: Tensor | None = None


def start_stream(module: nn.Module) -> None:
    """Clears the memory of all layers of a module and makes them remember from call to call."""
    for part in module.modules():
        if isinstance(part, Remembering):
            part.streams, part.memory = True, None


class LeftContext(Remembering):
    """Prepends a causal convolution's left context: zeros, or in a stream the last `frames` of the chunk before."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames

    def forward(self, x: Tensor) -> Tensor:
        """`[..., T]` -> `[..., frames + T]`."""
        x = nn.functional.pad(x, (self.frames, 0)) if self.memory is None else torch.cat([self.memory, x], dim=-1)
        if self.streams:
            self.memory = x[..., x.shape[-1] - self.frames :].clone()
        return x


class CausalGRU(nn.GRU, Remembering):
    """A unidirectional GRU that can process a stream."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """`[B, T, C]` -> outputs `[B, T, cells]` and the last state `[layers, B, cells]`."""
        outputs, state = super().forward(x, self.memory)
        if self.streams:
            self.memory = state
        return outputs, state
