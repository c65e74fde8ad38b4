"""How far an operator's result is from the one in float64."""

from __future__ import annotations

from torch import Tensor


def error(value: Tensor, wanted: Tensor) -> float:
    """The largest difference over the largest wanted value; 0 of nothing."""
    if wanted.numel() == 0:
        return 0.0
    wanted = wanted.detach().double()
    return float((value.detach().cpu().double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-300))
