"""The roots of unity of the CUDA kernels' transforms, as csrc/cuda/register_fft.cuh reads them."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

_RADIX = 16
_POWERS = torch.tensor([1, 2, 3, 4, 8, 12], dtype=torch.float64)


# Without a bound: the tables are small, and a CUDA graph goes on reading those that it was recorded with.
@functools.cache
def fft_roots(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """``[values, 2]`` real and imaginary parts: the tables of transforms of ``sizes`` values, one behind the other.

    A table has a part for each pass over ``L = size, size / 16, ... > 16`` values: ``exp(-2 pi i / L)`` to the power
    of ``p * n``, with the ``p`` of ``_POWERS`` as rows and n from 0 to ``L / 16 - 1`` as columns; each value is rounded
    once. Made on the host and copied to the device: call once before capturing a CUDA graph.
    """
    # Made in a validation loop's inference mode, they must still serve a backward later.
    with torch.inference_mode(False), torch.no_grad():
        angles = []
        for size in sizes:
            length = size
            while length > _RADIX:
                turns = _POWERS[:, None] * torch.arange(length // _RADIX, dtype=torch.float64) / length
                angles.append(-2 * math.pi * turns.flatten())
                length //= _RADIX
        table = torch.cat(angles)
        return torch.stack([table.cos(), table.sin()], dim=-1).to(device, dtype)
