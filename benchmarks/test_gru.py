"""gru: the detector's recurrent layers with frozen weights, compared with torch.nn.GRU."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from task_aware import ops

from .side_by_side import Case, SideBySide


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.shapes([(1, 157, 128), (10, 157, 128)], quick=[(2, 6, 8)], full=[(60, 157, 128)])
def test_gru(side_by_side: SideBySide, shape: tuple[int, int, int], backward: bool) -> None:
    B, T, H = shape
    device = side_by_side.device
    if device != "cpu":
        pytest.skip("on a GPU the detector runs cuDNN's")
    layers = torch.nn.GRU(H, H, 2, batch_first=True, bidirectional=True).requires_grad_(False)
    by_dtype = {torch.float32: layers, torch.float64: deepcopy(layers).double()}
    x, grad = torch.randn(shape), torch.randn(B, T, 2 * H)
    case = Case(
        "gru, two layers",
        f"[{B},{T},{H}]",
        (x,),
        bytes_forward=x.nbytes + grad.nbytes,
        tolerance=1e-5,
        differentiated=(0,),
        output_gradients=(grad,),
        bytes_backward=2 * x.nbytes + 2 * grad.nbytes,
    )
    side_by_side.compare(
        case, lambda x: (ops.gru(x, layers, backend="native"),), lambda x: (by_dtype[x.dtype](x)[0],), backward=backward
    )
