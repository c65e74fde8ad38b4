"""mel_mask: mask, decibels, clamp and scaling in one pass, compared with the chain of PyTorch operators."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from task_aware import ops

from .side_by_side import Case, SideBySide

MASK_FLOOR = 0.02
HEADLINE = (12, 5, 128, 628)


def make_case(shape: tuple[int, int, int, int], device: str) -> Case:
    B, S, F, T = shape
    logits = 3 * torch.randn(shape, device=device)
    mel = torch.randn(B, F, T, device=device).exp()
    mean, std = torch.full((F,), -30.0, device=device), torch.full((F,), 15.0, device=device)
    return Case(
        "mel_mask",
        f"[{B},{S},{F},{T}]",
        (logits, mel, mean, std),
        bytes_forward=3 * logits.nbytes + mel.nbytes,
        # float32's sigmoid, and gradients that jump where an element meets the clamp.
        tolerance=1e-4,
        differentiated=(0,),
        output_gradients=(torch.randn_like(logits), torch.randn_like(logits)),
        bytes_backward=4 * logits.nbytes + mel.nbytes,
    )


def native(*inputs: Tensor) -> ops.MaskedMel:
    return ops.mel_mask(*inputs, floor=MASK_FLOOR, backend="native")


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.shapes(
    [HEADLINE, (4, 5, 128, 314)],
    quick=[(2, 3, 16, 41)],
    full=[(96, 5, 128, 628), (12, 20, 128, 628)],
    headline=[HEADLINE],
)
def test_mel_mask(side_by_side: SideBySide, shape: tuple[int, int, int, int], backward: bool) -> None:
    side_by_side.compare(
        make_case(shape, side_by_side.device),
        native,
        lambda *inputs: ops.mel_mask_reference(*inputs, floor=MASK_FLOOR),
        backward=backward,
    )
