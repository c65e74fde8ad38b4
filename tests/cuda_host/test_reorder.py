"""The kernels of reorder.cuh, run on the host."""

from __future__ import annotations

import pytest
import torch

from task_aware import ops

from .conftest import Programs, every_build
from .running import Case, check, dtype_name

SHAPES = [(1, 1, 1), (2, 5, 129), (3, 2, 2049), (1, 32, 70), (1, 3, 4100)]


@every_build([torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("operation", ["forward", "backward"])
def test_kernel(programs: Programs, build: str, dtype: torch.dtype, operation: str) -> None:
    cases, wanted = [], []
    for k, (B, S, N) in enumerate(SHAPES):
        torch.manual_seed(k)
        source = torch.randn(B, S, N).to(dtype)
        source[0, 0, N // 2] = torch.nan
        # Rows taken twice and rows not taken, then a permutation.
        permutation = torch.randint(S, (B, S)) if k % 2 else torch.stack([torch.randperm(S) for _ in range(B)])
        inputs = {"operation": operation, "dtype": dtype_name(dtype), "B": B, "S": S, "N": N}
        inputs |= {"source": source, "permutation": permutation}
        cases.append(Case(f"{B}x{S}x{N}", inputs, {"result": (dtype, (B, S, N))}))
        rows = source.double().requires_grad_()
        result = ops.reorder_reference(rows, permutation)
        wanted.append(result if operation == "forward" else torch.autograd.grad(result, rows, source.double())[0])
    # A row taken several times adds its gradients and rounds once.
    tolerance = {torch.float64: 1e-15, torch.float32: 1e-6, torch.bfloat16: 2**-8}[dtype]
    for case, result, want in zip(cases, programs("reorder", build).run(cases), wanted, strict=True):
        check(case.name, result["result"], want, 0 if operation == "forward" else tolerance)


def test_an_index_out_of_range_fills_its_row_with_nan(programs: Programs, build: str) -> None:
    source = torch.arange(6.0).view(1, 3, 2)
    inputs = {"operation": "forward", "dtype": "float32", "B": 1, "S": 3, "N": 2, "source": source}
    case = Case("bad", inputs | {"permutation": torch.tensor([[3, 1, -1]])}, {"result": (torch.float32, (1, 3, 2))})
    (result,) = programs("reorder", build).run([case])
    check("bad", result["result"], torch.tensor([[[torch.nan] * 2, [2.0, 3.0], [torch.nan] * 2]]), 0)
