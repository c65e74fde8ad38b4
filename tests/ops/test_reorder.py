"""reorder against its definition, on every device that has kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from task_aware import ops


def permutations(B: int, S: int, device: str) -> Tensor:
    rows = [torch.randperm(S) for _ in range(B)]
    return torch.stack(rows).to(device) if rows else torch.empty(0, S, dtype=torch.int64, device=device)


def sample_inputs(device: str, dtype: torch.dtype = torch.float32) -> Iterator[tuple[Tensor, Tensor]]:
    """Shapes that break indexing: one of everything, odd lengths, empty batches, views, many dimensions."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    for shape in [(1, 1, 1), (2, 5, 129), (3, 2, 7, 11), (1, 32, 1134), (4, 3), (0, 3, 8)]:
        yield random(*shape), permutations(shape[0], shape[1], device)
    yield random(3, 17, 4).transpose(1, 2), permutations(3, 4, device)
    yield random(1, 4, 9).expand(3, 4, 9), permutations(3, 4, device)
    yield random(2, 3, 10)[..., ::2], permutations(3, 2, device).t()[..., :1].expand(2, 3) * 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rows_and_gradients_are_exactly_the_reference(device: str, dtype: torch.dtype) -> None:
    for estimates, permutation in sample_inputs(device, dtype):
        native, plain = estimates.clone().requires_grad_(), estimates.clone().requires_grad_()
        result = ops.reorder(native, permutation, backend="native")
        expected = ops.reorder_reference(plain, permutation)
        assert torch.equal(result, expected)
        weight = torch.randn_like(result)
        result.backward(weight)
        expected.backward(weight)
        # A row taken several times adds its gradients: exact in float64, rounded otherwise.
        tolerance = {torch.float64: 1e-15, torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype]
        torch.testing.assert_close(native.grad, plain.grad, rtol=tolerance, atol=tolerance)


def test_row_j_is_the_estimate_of_target_j(device: str) -> None:
    estimates = torch.arange(3.0, device=device).reshape(1, 3, 1)
    result = ops.reorder(estimates, torch.tensor([[2, 0, 1]], device=device))
    assert result.flatten().tolist() == [2.0, 0.0, 1.0]


def test_opcheck(device: str) -> None:
    for estimates, permutation in sample_inputs(device):
        estimates = estimates.detach().requires_grad_()
        torch.library.opcheck(torch.ops.task_aware.reorder.default, (estimates, permutation))
        torch.library.opcheck(torch.ops.task_aware.reorder_backward.default, (estimates.detach(), permutation))


def test_gradcheck(device: str) -> None:
    estimates = torch.randn(2, 3, 4, dtype=torch.float64, device=device, requires_grad=True)
    permutation = torch.tensor([[2, 0, 1], [1, 1, 0]], device=device)
    assert torch.autograd.gradcheck(lambda e: ops.reorder(e, permutation), estimates)


def test_compiles_into_one_graph(device: str) -> None:
    estimates = torch.randn(2, 3, 4, device=device, requires_grad=True)
    permutation = permutations(2, 3, device)
    compiled = torch.compile(lambda e: ops.reorder(e, permutation) * 2, fullgraph=True, backend="aot_eager")
    compiled(estimates).sum().backward()
    assert torch.equal(estimates.grad, torch.full_like(estimates, 2.0))


def test_an_index_out_of_range_is_an_error_on_the_cpu_and_nan_on_cuda(device: str, kernels: str) -> None:
    estimates = torch.zeros(1, 3, 4, device=device)
    permutation = torch.tensor([[0, 3, -1]], device=device)
    if kernels == "cpu":
        with pytest.raises(RuntimeError, match=r"holds 3 at \[0,1\], expected indices from 0 to 2"):
            ops.reorder(estimates, permutation)
    else:
        assert ops.reorder(estimates, permutation).isnan().all(-1).tolist() == [[False, True, True]]


@pytest.mark.parametrize(
    ("estimates", "permutation", "error", "message"),
    [
        (
            torch.zeros(2, 3, 4),
            torch.zeros(2, 4, dtype=torch.int64),
            ValueError,
            r"permutation is \[2,4\], expected \[B,S\] = \[2,3\]",
        ),
        (
            torch.zeros(2, 3, 4),
            torch.zeros(2, 3),
            TypeError,
            "permutation is torch.float32, expected torch.int64",
        ),
        (
            torch.zeros(2, 3, 4, dtype=torch.int32),
            torch.zeros(2, 3, dtype=torch.int64),
            TypeError,
            "estimates is torch.int32",
        ),
        (
            torch.zeros(2),
            torch.zeros(2, dtype=torch.int64),
            ValueError,
            r"estimates is \[2\], expected \[B,S,\*\]",
        ),
        ([1.0], torch.zeros(2, 3, dtype=torch.int64), TypeError, "estimates is list"),
    ],
)
def test_wrong_arguments(estimates: Tensor, permutation: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.reorder(estimates, permutation, backend="reference")
