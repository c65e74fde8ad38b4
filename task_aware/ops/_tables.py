"""Lookup tables of the native kernels: made once and kept, as they may be read at any time."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made", bound="Tensor | tuple[Any, ...]")

_RADIX = 16
_POWERS = (1, 2, 3, 4, 8, 12)


def kept(make: Callable[..., Made]) -> Callable[..., Made]:
    """Caches the result of ``make``, a tensor or a tuple whose first element is one, by its arguments.

    The cache is unbounded on purpose: tables are small, and a CUDA graph continues to read those it was captured with.
    Tables made while tracing (torch.export's tensors without data) belong to that trace and are not kept.
    """
    store: dict[tuple[Any, ...], Made] = {}

    @functools.wraps(make)
    def look_up(*key: Any) -> Made:
        if key in store:
            return store[key]
        # Tables made in inference mode, as in a validation loop, must still work in a later backward.
        with torch.inference_mode(False), torch.no_grad():
            made = make(*key)
        first = made if isinstance(made, Tensor) else made[0]
        # The first of two threads wins: its table may already be in use.
        return store.setdefault(key, made) if type(first) is Tensor else made

    return look_up


@kept
def fft_roots(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The roots of unity for CUDA transforms, in the layout that csrc/cuda/register_fft.cuh reads.

    ``[values, 2]``, real and imaginary parts: the concatenated tables of transforms of ``sizes`` values. A table has
    a part for each pass over ``L = size, size / 16, ... > 16`` values: ``exp(-2 pi i / L)`` to the power of ``p * n``,
    with the ``p`` of ``_POWERS`` as rows and n from 0 to ``L / 16 - 1`` as columns; each value is rounded once. The
    tables are made on the host and copied to the device: call this once before capturing a CUDA graph.
    """
    host: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}  # whatever the caller's default device is
    powers, angles = torch.tensor(_POWERS, **host)[:, None], []
    for size in sizes:
        length = size
        while length > _RADIX:
            turns = powers * torch.arange(length // _RADIX, **host) / length
            angles.append(-2 * math.pi * turns.flatten())
            length //= _RADIX
    table = torch.cat(angles)
    return torch.stack([table.cos(), table.sin()], dim=-1).to(device, dtype)
