"""The kernels of glu_pool.cuh, run on the host."""

from __future__ import annotations

import pytest
import torch

from task_aware import ops

from .conftest import Programs, every_build
from .running import Case, check, dtype_name

# (B, C, F, T, pool): one of everything, each number of channels per thread, in whole groups and not, tiles that end
# early, three frames a pool.
SHAPES = [
    *((1, 1, 1, 1, (1, 1)), (2, 16, 4, 70, (2, 2)), (1, 20, 2, 65, (2, 1)), (1, 50, 1, 33, (1, 1))),
    *((1, 70, 2, 20, (1, 2)), (2, 5, 3, 130, (3, 3)), (1, 128, 1, 18, (1, 2))),
]
TOLERANCE = {torch.float64: 1e-14, torch.float32: 2e-6, torch.bfloat16: 2**-8}


@every_build(list(TOLERANCE))
@pytest.mark.parametrize("operation", ["forward", "backward"])
def test_kernel(programs: Programs, build: str, dtype: torch.dtype, operation: str) -> None:
    compute = torch.promote_types(dtype, torch.float32)
    cases, wanted = [], []
    for B, C, F, T, pool in SHAPES:
        torch.manual_seed(C)
        x = torch.randn(B, C, F, T).to(dtype)
        weight, bias = (torch.randn(C, C) / C**0.5).to(compute), torch.randn(C).to(compute)
        doubles = x.double().requires_grad_()
        out = ops.glu_pool_reference(doubles, weight.double(), bias.double(), pool)
        sizes = {"operation": operation, "dtype": dtype_name(dtype), "B": B, "C": C, "F": F, "T": T}
        inputs = sizes | {"mel": pool[0], "time": pool[1], "x": x, "weight": weight, "bias": bias}
        inputs["transposed"] = weight.t().contiguous()
        if operation == "forward":
            wanted.append(out.detach())
        else:
            inputs["grad"] = torch.randn(out.shape).to(dtype)
            wanted.append(torch.autograd.grad(out, doubles, inputs["grad"].double())[0])
        cases.append(Case(f"{B}x{C}x{F}x{T} {pool}", inputs, {"out": (dtype, tuple(wanted[-1].shape))}))
    results = programs("glu_pool", build).run(cases)
    for case, result, want, (_, _, F, T, (mel, time)) in zip(cases, results, wanted, SHAPES, strict=True):
        # what no pool reaches, the caller has filled with zeros
        used = (..., slice(F // mel * mel), slice(T // time * time)) if operation == "backward" else ...
        got, want = result["out"][used], want[used]
        check(case.name, got, want, TOLERANCE[dtype], scale=float(want.abs().max()))
