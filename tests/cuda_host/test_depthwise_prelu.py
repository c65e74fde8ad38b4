"""The kernels of depthwise_prelu.cuh, run on the host."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from .conftest import Programs, every_build
from .running import Case, Shifted, check, dtype_name

# (B, C, T, dilation): one of everything, one channel, rows that begin anywhere in a group, blocks that end early,
# dilations longer than the row and beyond 32 bits, more groups than a lane loads at once, rows of several segments
# (of 1024 frames, in float64 512) whose neighbours are near, far away and nowhere.
SHAPES = [
    *((1, 1, 1, 1), (3, 1, 6, 2), (2, 3, 45, 1), (1, 5, 64, 16), (2, 2, 7, 9), (1, 2, 9, 2**40), (10, 1, 130, 128)),
    *((1, 1, 1000, 8), (2, 1, 1100, 1), (1, 1, 2100, 1030), (1, 1, 1030, 2000)),
]
TOLERANCE = {torch.float64: 1e-14, torch.float32: 2e-6, torch.bfloat16: 2**-8}
GRADIENTS = ("out", "grad_weight", "grad_bias", "grad_slope")

Inputs = tuple[Tensor, ...]  # x, weight, bias, slope, grad


def sample(B: int, C: int, T: int, dtype: torch.dtype) -> Inputs:
    torch.manual_seed(T)
    compute = torch.promote_types(dtype, torch.float32)
    x, weight, bias, slope, grad = (torch.randn(shape) for shape in ((B, C, T), (C, 3), (C,), (1,), (B, C, T)))
    return x.to(dtype), weight.to(compute), bias.to(compute), slope.to(compute), grad.to(dtype)


def make_case(inputs: Inputs, dilation: int, operation: str, shift: int = 0) -> tuple[Case, dict[str, Tensor]]:
    """A case and its outputs in float64; x begins `shift` elements behind an aligned address, grad twice as many."""
    x, weight, bias, slope, grad = inputs
    B, C, T = x.shape
    given: dict[str, Tensor | Shifted | str | int | float | None]
    given = {"B": B, "C": C, "T": T, "dilation": dilation, "operation": operation, "dtype": dtype_name(x.dtype)}
    given |= {"weight": weight, "bias": bias, "slope": slope}
    given |= {"x": Shifted(x, shift), "grad": Shifted(grad, 2 * shift)}
    leaves = [tensor.double().requires_grad_() for tensor in (x, weight, bias, slope.repeat(C))]
    step = min(dilation, T)
    u = functional.conv1d(leaves[0], leaves[1][:, None], leaves[2], padding=step, dilation=step, groups=C)
    out = functional.prelu(u, leaves[3])
    wanted = {"out": out.detach()}
    if operation == "backward":
        wanted = dict(zip(GRADIENTS, torch.autograd.grad(out, leaves, grad.double()), strict=True))
    dtypes = {name: x.dtype if name == "out" else weight.dtype for name in wanted}
    outputs = {name: (dtypes[name], tuple(tensor.shape)) for name, tensor in wanted.items()}
    return Case(f"{(B, C, T)}, dilation {dilation}, shift {shift}", given, outputs), wanted


@every_build(list(TOLERANCE))
@pytest.mark.parametrize("operation", ["forward", "backward"])
def test_kernels(programs: Programs, build: str, dtype: torch.dtype, operation: str) -> None:
    pairs = [
        make_case(sample(B, C, T, dtype), dilation, operation, k % 4) for k, (B, C, T, dilation) in enumerate(SHAPES)
    ]
    results = programs("depthwise_prelu", build).run([case for case, _ in pairs], schedules=2)
    of_sums = 4 * TOLERANCE[torch.promote_types(dtype, torch.float32)]  # in which 2100 terms cancel
    for (case, wanted), result in zip(pairs, results, strict=True):
        for name, want in wanted.items():
            check(f"{case.name}: {name}", result[name], want, TOLERANCE[dtype] if name == "out" else of_sums)


@pytest.mark.parametrize("T", [40, 1100])
def test_what_is_not_finite_spoils_its_neighbours_alone(programs: Programs, T: int) -> None:
    """Its row's part of the other gradients too, and those of its channel."""
    x, *weights, grad = sample(2, 2, T, torch.float32)
    x[0, 1, 1], x[0, 1, T - 9], grad[1, 0, T - 1] = torch.nan, torch.inf, torch.nan
    for operation in ("forward", "backward"):
        case, wanted = make_case((x, *weights, grad), 5, operation)
        (result,) = programs("depthwise_prelu", "plain").run([case])
        for name, want in wanted.items():
            assert torch.equal(result[name].isnan(), want.isnan()), name
            finite = want.isfinite()
            check(name, result[name][finite], want[finite], 4 * TOLERANCE[torch.float32])
