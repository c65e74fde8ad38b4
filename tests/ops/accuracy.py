"""How far an operator's result is from the one in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def error(value: Tensor, wanted: Tensor) -> float:
    """The largest difference over the largest wanted value; 0 of nothing."""
    if wanted.numel() == 0:
        return 0.0
    wanted = wanted.detach().double()
    return float((value.detach().cpu().double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-300))


def check_gradients(
    out: Tensor, leaves: Sequence[Tensor], wanted: Tensor, doubles: Sequence[Tensor], tolerance: float
) -> None:
    """The gradients of `out` against those of `wanted`, the same in float64, for one drawn gradient of the result."""
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    got = torch.autograd.grad(out, leaves, grad)
    want = torch.autograd.grad(wanted, doubles, grad.cpu().double(), allow_unused=True, materialize_grads=True)
    for value, wish, leaf in zip(got, want, leaves, strict=True):
        assert value.dtype == leaf.dtype and value.shape == wish.shape
        assert error(value, wish) < tolerance
