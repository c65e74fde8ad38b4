"""The kernels of gru_scan.cuh, run on the host."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from task_aware import ops

from .conftest import Programs, every_build
from .running import Case, check, dtype_name

# (B, T, D, H): one of everything, units that fill no group of lanes, both sizes of a weight in registers, more items
# than a block has, more frames than a block of the factors has, and weights beyond the registers, of two passes.
SHAPES = [(1, 1, 1, 1), (2, 3, 2, 5), (3, 12, 1, 33), (1, 3, 2, 64), (1, 2, 1, 70), (2, 2, 1, 128), (5, 2, 2, 130)]
TOLERANCE = {torch.float64: 1e-14, torch.float32: 2e-6, torch.bfloat16: 2**-7}  # of the forward
BACKWARD = 4  # times as much

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]  # gates, weight, bias, grad


def sample(B: int, T: int, D: int, H: int, dtype: torch.dtype = torch.float32) -> Inputs:
    torch.manual_seed(H)
    compute = torch.promote_types(dtype, torch.float32)
    gates, grad = 2 * torch.randn(B, T, D, 3 * H), torch.randn(B, T, D, H)
    weight, bias = torch.randn(D, 3 * H, H) / H**0.5, torch.randn(D, 3 * H) / 2
    return gates.to(dtype), weight.to(compute), bias.to(compute), grad.to(dtype)


def make_case(inputs: Inputs, operation: str) -> tuple[Case, Tensor]:
    """A case and its output in float64."""
    gates, weight, bias, grad = inputs
    doubles = gates.double().requires_grad_()
    wanted = h = ops.gru_scan_reference(doubles, weight.double(), bias.double())
    if operation == "backward":
        (wanted,) = torch.autograd.grad(h, doubles, grad.double())
    names = dict(zip("BTDH", h.shape, strict=True)) | {"operation": operation, "dtype": dtype_name(gates.dtype)}
    tensors = {"gates": gates, "weight": weight, "bias": bias, "grad": grad, "h": h.detach().to(gates.dtype)}
    return Case(str(list(h.shape)), names | tensors, {"out": (gates.dtype, tuple(wanted.shape))}), wanted.detach()


@every_build(list(TOLERANCE))
@pytest.mark.parametrize("operation", ["forward", "backward"])
def test_kernel(programs: Programs, build: str, dtype: torch.dtype, operation: str) -> None:
    shapes = SHAPES[2:3] + SHAPES[-1:] if build == "thread" else SHAPES  # of each way of holding the weight
    pairs = [make_case(sample(*shape, dtype), operation) for shape in shapes]
    results = programs("gru_scan", build).run([case for case, _ in pairs], schedules=1 if build == "thread" else 2)
    tolerance = TOLERANCE[dtype] * (BACKWARD if operation == "backward" else 1)
    for (case, wanted), result in zip(pairs, results, strict=True):
        check(case.name, result["out"], wanted, tolerance)


@pytest.mark.parametrize("operation", ["forward", "backward"])
def test_gates_that_are_shut(programs: Programs, operation: str) -> None:
    """In float32 no gate of such an input is between 0 and 1, and the state keeps or forgets what it held."""
    gates, weight, bias, grad = sample(3, 9, 2, 20)
    shut = (1e4 * gates.sign(), weight, bias, grad)
    case, wanted = make_case(shut, operation)
    (result,) = programs("gru_scan", "plain").run([case])
    check(case.name, result["out"], wanted, BACKWARD * TOLERANCE[torch.float32], scale=1)


@pytest.mark.parametrize("H", [20, 130])
def test_nan_spoils_its_item_from_its_frame_on(programs: Programs, H: int) -> None:
    gates, weight, bias, grad = sample(5, 4, 2, H)
    gates[1, 2, 0, 4], gates[3, 2, 1, 5] = torch.nan, torch.nan
    for operation in ("forward", "backward"):
        case, wanted = make_case((gates, weight, bias, grad), operation)
        (result,) = programs("gru_scan", "plain").run([case])
        assert wanted.isnan().any() and wanted.isfinite().any()
        check(f"{operation} {case.name}", result["out"], wanted, BACKWARD * TOLERANCE[torch.float32])
