"""depthwise_prelu: the middle of a mask network's block, compared with PyTorch's convolution and PReLU."""

from __future__ import annotations

import pytest
import torch

from task_aware import ops

from .side_by_side import Case, SideBySide


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.shapes(
    [(8, 128, 314, 1), (8, 128, 314, 16), (12, 512, 628, 16)],
    quick=[(2, 6, 41, 4)],
)
def test_depthwise_prelu(side_by_side: SideBySide, shape: tuple[int, int, int, int], backward: bool) -> None:
    B, C, T, dilation = shape
    if side_by_side.device != "cpu":
        pytest.skip("on a GPU the mask network runs cuDNN's convolution and PReLU")
    x, grad = torch.randn(B, C, T), torch.randn(B, C, T)
    weight, bias, slope = torch.randn(C, 3), torch.randn(C), torch.tensor([0.25])
    case = Case(
        "depthwise_prelu",
        f"[{B},{C},{T}], dilation {dilation}",
        (x, weight, bias, slope),
        bytes_forward=2 * x.nbytes,
        tolerance=1e-5,
        differentiated=(0, 1, 2, 3),
        output_gradients=(grad,),
        bytes_backward=3 * x.nbytes,
    )
    side_by_side.compare(
        case,
        lambda *inputs: (ops.depthwise_prelu(*inputs, dilation, backend="native"),),
        lambda *inputs: (ops.depthwise_prelu_reference(*inputs, dilation),),
        backward=backward,
    )
