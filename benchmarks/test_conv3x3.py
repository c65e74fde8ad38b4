"""conv3x3: a convolution by Winograd's algorithm, compared with PyTorch's own."""

from __future__ import annotations

import pytest
import torch

from task_aware import ops

from .side_by_side import Case, SideBySide


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.shapes(
    [(3, 16, 32, 16, 250), (3, 32, 64, 8, 250), (3, 64, 64, 4, 250), (3, 64, 64, 2, 250)], quick=[(2, 5, 7, 3, 9)]
)
def test_conv3x3(side_by_side: SideBySide, shape: tuple[int, int, int, int, int], backward: bool) -> None:
    B, C, K, F, T = shape
    if side_by_side.device != "cpu":
        pytest.skip("on a GPU the detector runs cuDNN's convolutions")
    x = torch.randn(B, C, F, T).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(K, C, 3, 3) / (9 * C) ** 0.5, torch.randn(K)
    gradient = torch.randn(B, K, F, T).contiguous(memory_format=torch.channels_last)
    case = Case(
        "conv3x3",
        f"[{B},{C},{F},{T}] to {K} channels",
        (x, weight, bias),
        bytes_forward=2 * x.nbytes + gradient.nbytes,
        tolerance=1e-5,
        differentiated=(0,),
        output_gradients=(gradient,),
        bytes_backward=x.nbytes + 2 * gradient.nbytes,
    )
    side_by_side.compare(
        case,
        lambda *inputs: (ops.conv3x3(*inputs, backend="native"),),
        lambda *inputs: (ops.conv3x3_reference(*inputs),),
        {},
        backward=backward,
    )
