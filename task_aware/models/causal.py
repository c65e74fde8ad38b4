"""What causal networks are made of: layers that look back alone, and in a stream go on from where the last chunk ended.

A stream runs the same modules as a whole signal, a chunk at a time, each on what it remembers and the chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Remembering(nn.Module):
    """A layer that depends on what came before.

    Attributes:
        streams: whether a call goes on from the one before; otherwise each begins anew.
        memory: what the last call left, None at the beginning.
    """

    streams: bool = False
    memory: Tensor | None = None


def start_stream(module: nn.Module) -> None:
    """Lets all layers of a module forget, and from now on remember from call to call."""
    for part in module.modules():
        if isinstance(part, Remembering):
            part.streams, part.memory = True, None


class LeftContext(Remembering):
    """What a causal convolution hears before the first frame: zeros, or in a stream the last `frames` before it."""

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
    """A GRU in one direction."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """`[B, T, C]` -> outputs `[B, T, cells]` and the last state `[layers, B, cells]`."""
        outputs, state = super().forward(x, self.memory)
        if self.streams:
            self.memory = state
        return outputs, state
