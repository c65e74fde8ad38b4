"""The kernels of conv_glu_pool.cuh, run on the host."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from task_aware import ops

from .conftest import Programs, every_build
from .running import Case, check, dtype_name

# (B, C, F, T, pool): one of everything, all channels that fit and one of them, odd numbers of bands, tiles that begin
# and end early, pools of one position, of three frames and as large as may be, positions that no pool reaches.
SHAPES = [
    *((1, 1, 1, 1, (1, 1)), (2, 16, 4, 70, (2, 2)), (1, 5, 7, 45, (2, 3)), (2, 3, 3, 31, (1, 1))),
    *((1, 7, 5, 30, (3, 2)), (1, 2, 5, 65, (5, 32)), (1, 16, 2, 29, (1, 2))),
]
TOLERANCE = {torch.float64: 1e-14, torch.float32: 2e-6, torch.bfloat16: 2**-8}

Inputs = tuple[Tensor, ...]  # features, kernel, shift, weight, bias, grad


def sample(B: int, C: int, F: int, T: int, pool: tuple[int, int], dtype: torch.dtype) -> Inputs:
    torch.manual_seed(C)
    compute = torch.promote_types(dtype, torch.float32)
    features, grad = 2 * torch.randn(B, F, T), torch.randn(B, C, F // pool[0], T // pool[1])
    kernel, weight = torch.randn(C, 3, 3) / 2, torch.randn(C, C) / C**0.5
    shift, bias = torch.randn(2, C).to(compute)
    weights = kernel.to(dtype).to(compute), shift, weight.to(dtype).to(compute), bias
    return features.to(dtype), *weights, grad.to(dtype)


def make_case(inputs: Inputs, pool: tuple[int, int], operation: str) -> tuple[Case, Tensor]:
    """A case and its output in float64."""
    *arguments, grad = inputs
    features = inputs[0]
    given: dict[str, Tensor | str | int] = dict(zip("BFT", features.shape, strict=True))
    given |= {"C": grad.shape[1], "mel": pool[0], "time": pool[1]}
    given |= {"operation": operation, "dtype": dtype_name(features.dtype), "grad": grad}
    given |= dict(zip(("features", "kernel", "shift", "weight", "bias"), arguments, strict=True))
    first, *others = (tensor.double() for tensor in arguments)
    wanted = ops.conv_glu_pool_reference(first.requires_grad_(), *others, pool)
    if operation == "backward":
        (wanted,) = torch.autograd.grad(wanted, first, grad.double())
    name = f"{list(features.shape)}, {grad.shape[1]} channels, {pool}"
    return Case(name, {**given}, {"out": (features.dtype, tuple(wanted.shape))}), wanted.detach()


@every_build(list(TOLERANCE))
@pytest.mark.parametrize("operation", ["forward", "backward"])
def test_kernels(programs: Programs, build: str, dtype: torch.dtype, operation: str) -> None:
    pairs = [make_case(sample(*shape, dtype), shape[4], operation) for shape in SHAPES]
    results = programs("conv_glu_pool", build).run([case for case, _ in pairs], schedules=2)
    for (case, wanted), result in zip(pairs, results, strict=True):
        check(case.name, result["out"], wanted, TOLERANCE[dtype])


def test_what_is_not_finite_spoils_its_neighbours_alone(programs: Programs) -> None:
    features, *others = sample(2, 3, 9, 40, (2, 3), torch.float32)
    features[0, 1, 9], features[0, 8, 30], features[1, 4, 39] = torch.nan, torch.nan, torch.inf
    for operation in ("forward", "backward"):
        case, wanted = make_case((features, *others), (2, 3), operation)
        (result,) = programs("conv_glu_pool", "plain").run([case])
        finite = wanted.isfinite()
        assert torch.equal(result["out"].isfinite(), finite)
        check(operation, result["out"][finite], wanted[finite], 2 * TOLERANCE[torch.float32])
