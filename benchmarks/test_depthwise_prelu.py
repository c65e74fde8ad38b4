"""depthwise_prelu: the middle of a mask network's block, compared with PyTorch's convolution and PReLU."""

from __future__ import annotations

import pytest
import torch

from task_aware import ops

from .side_by_side import Case, Implementation, SideBySide

Shape = tuple[int, int, int, int]

HEADLINE = (12, 512, 628, 16)


def make_case(shape: Shape, device: str) -> Case:
    B, C, T, dilation = shape
    x, grad, weight, bias = (torch.randn(size, device=device) for size in ((B, C, T), (B, C, T), (C, 3), (C,)))
    return Case(
        "depthwise_prelu",
        f"[{B},{C},{T}], dilation {dilation}",
        (x, weight, bias, torch.tensor([0.25], device=device)),
        bytes_forward=2 * x.nbytes,
        tolerance=1e-5,
        differentiated=(0, 1, 2, 3),
        output_gradients=(grad,),
        bytes_backward=3 * x.nbytes,
    )


def native(dilation: int) -> Implementation:
    return lambda *inputs: (ops.depthwise_prelu(*inputs, dilation, backend="native"),)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.shapes(
    [(8, 128, 314, 1), (8, 128, 314, 16), HEADLINE],
    quick=[(2, 6, 41, 4)],
    headline=[(8, 128, 314, 16), HEADLINE],
)
def test_depthwise_prelu(side_by_side: SideBySide, shape: Shape, backward: bool) -> None:
    dilation = shape[3]
    side_by_side.compare(
        make_case(shape, side_by_side.device),
        native(dilation),
        lambda *inputs: (ops.depthwise_prelu_reference(*inputs, dilation),),
        backward=backward,
    )
