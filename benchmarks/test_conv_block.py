"""conv_block: a block of the mask network, compared with its layers in PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from task_aware import ops

from .side_by_side import Case, SideBySide


def layers(x: Tensor, total: Tensor, *weights: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
    """The block by PyTorch's own convolutions, activations and norms."""
    expand, bias1, slope1, gain1, shift1, depth, depth_bias, slope2, gain2, shift2, *outputs = weights
    functional = nn.functional
    hidden = functional.prelu(functional.conv1d(x, expand[..., None], bias1), slope1)
    hidden = functional.group_norm(hidden, 1, gain1, shift1, 1e-8)
    hidden = functional.conv1d(
        hidden, depth[:, None], depth_bias, padding=dilation, dilation=dilation, groups=len(depth)
    )
    hidden = functional.group_norm(functional.prelu(hidden, slope2), 1, gain2, shift2, 1e-8)
    residual, bias_out, skip, bias_skip = outputs
    out = x + functional.conv1d(hidden, residual[..., None], bias_out)
    return out, total + functional.conv1d(hidden, skip[..., None], bias_skip)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.shapes(
    [(8, 64, 128, 64, 251, 4), (1, 64, 128, 64, 1001, 16), (8, 128, 512, 128, 314, 16)],
    quick=[(2, 6, 10, 5, 41, 4)],
)
def test_conv_block(side_by_side: SideBySide, shape: tuple[int, int, int, int, int, int], backward: bool) -> None:
    B, C, H, S, T, dilation = shape
    if side_by_side.device != "cpu":
        pytest.skip("on a GPU the mask network runs its layers by cuDNN")
    x, total = torch.randn(B, T, C).mT, torch.randn(B, T, S).mT
    of_hidden = [0.1 * torch.randn(H), torch.tensor([0.25]), torch.rand(H) + 0.5, 0.1 * torch.randn(H)]
    outputs = [torch.randn(C, H) / H**0.5, torch.randn(C), torch.randn(S, H) / H**0.5, torch.randn(S)]
    weights = [torch.randn(H, C) / C**0.5, *of_hidden, torch.randn(H, 3), *of_hidden, *outputs]
    inputs = (x, total, *weights)
    case = Case(
        "conv_block",
        f"[{B},{C},{T}], {H} hidden, {S} skip, dilation {dilation}",
        inputs,
        bytes_forward=2 * (x.nbytes + total.nbytes),
        tolerance=1e-4,
        differentiated=tuple(range(len(inputs))),
        output_gradients=(torch.randn(B, T, C).mT, torch.randn(B, T, S).mT),
        bytes_backward=3 * x.nbytes + 2 * total.nbytes,
    )
    side_by_side.compare(
        case,
        lambda *inputs: ops.conv_block(*inputs, dilation, backend="native"),
        lambda *inputs: ops.conv_block_reference(*inputs, dilation),
        {"layers of PyTorch": lambda *inputs: layers(*inputs, dilation=dilation)},
        backward=backward,
    )
