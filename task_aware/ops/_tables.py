"""Tables that native kernels look up: made once, and kept for as long as anything may read them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made", bound="Tensor | tuple[Any, ...]")

_RADIX = 16
_POWERS = torch.tensor([1, 2, 3, 4, 8, 12], dtype=torch.float64)


def kept(make: Callable[..., Made]) -> Callable[..., Made]:
    """A cache of what ``make`` returns, a tensor or a tuple that begins with one, by its arguments.

    Without a bound: tables are small, and a CUDA graph goes on reading those that it was recorded with. What is made
    within a trace (torch.export's tensors without data) belongs to that trace and is not kept.
    """
    store: dict[tuple[Any, ...], Made] = {}

    @functools.wraps(make)
    def look_up(*key: Any) -> Made:
        if key in store:
            return store[key]
        # Made in a validation loop's inference mode, they must still serve a backward later.
        with torch.inference_mode(False), torch.no_grad():
            made = make(*key)
        first = made if isinstance(made, Tensor) else made[0]
        if type(first) is Tensor:
            store[key] = made
        return made

    return look_up


@kept
def fft_roots(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The roots of unity of CUDA transforms, as csrc/cuda/register_fft.cuh reads them.

    ``[values, 2]``, real and imaginary parts: the tables of transforms of ``sizes`` values, one behind the other.
    A table has a part for each pass over ``L = size, size / 16, ... > 16`` values: ``exp(-2 pi i / L)`` to the
    power of ``p * n``, with the ``p`` of ``_POWERS`` as rows and n from 0 to ``L / 16 - 1`` as columns; each value
    is rounded once. Made on the host and copied to the device: call once before capturing a CUDA graph.
    """
    angles = []
    for size in sizes:
        length = size
        while length > _RADIX:
            turns = _POWERS[:, None] * torch.arange(length // _RADIX, dtype=torch.float64) / length
            angles.append(-2 * math.pi * turns.flatten())
            length //= _RADIX
    table = torch.cat(angles)
    return torch.stack([table.cos(), table.sin()], dim=-1).to(device, dtype)
