"""gru: the detector's recurrent layers with frozen weights, compared with torch.nn.GRU, which on a GPU is cuDNN's."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from task_aware import ops

from .side_by_side import Case, Implementation, SideBySide

#: Clips, frames and units: sources in a training step through the detector of DCASE 2020.
HEADLINE = (10, 157, 128)

Shape = tuple[int, int, int]


def make_layers(shape: Shape, device: str) -> nn.GRU:
    H = shape[2]
    return nn.GRU(H, H, 2, batch_first=True, bidirectional=True).requires_grad_(False).to(device)


def make_case(shape: Shape, device: str) -> Case:
    B, T, H = shape
    x, grad = torch.randn(shape, device=device), torch.randn(B, T, 2 * H, device=device)
    return Case(
        "gru, two layers",
        f"[{B},{T},{H}]",
        (x,),
        bytes_forward=x.nbytes + grad.nbytes,
        tolerance=1e-5,
        differentiated=(0,),
        output_gradients=(grad,),
        bytes_backward=2 * x.nbytes + 2 * grad.nbytes,
    )


def native(layers: nn.GRU) -> Implementation:
    return lambda x: (ops.gru(x, layers, backend="native"),)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.shapes(
    [(1, 157, 128), HEADLINE], quick=[(2, 6, 8)], full=[(10, 157, 64), (60, 157, 128)], headline=[HEADLINE]
)
def test_gru(side_by_side: SideBySide, shape: Shape, backward: bool) -> None:
    device = side_by_side.device
    layers = make_layers(shape, device)
    by_dtype = {torch.float32: layers, torch.float64: deepcopy(layers).double()}

    def reference(x: Tensor) -> tuple[Tensor]:
        return (by_dtype[x.dtype](x)[0],)

    side_by_side.compare(make_case(shape, device), native(layers), reference, backward=backward, multiplies=True)
