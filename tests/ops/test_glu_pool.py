"""glu_pool against its definition in float64, its gradients, and what it must refuse."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from task_aware import ops

from .accuracy import check_gradients, error

# (B, C, F, T, pool): one of everything, remainders in both directions, odd channels, tiles that end early, wide pools.
SHAPES = [
    *((1, 1, 1, 1, (1, 1)), (2, 16, 8, 70, (2, 2)), (3, 5, 7, 45, (2, 3)), (1, 128, 2, 157, (2, 1))),
    *((2, 7, 3, 300, (1, 2)), (1, 33, 2, 65, (2, 32)), (1, 4, 2, 1030, (2, 2)), (1, 3, 1, 32, (1, 32))),
]
EMPTY = (0, 4, 2, 8, (2, 2))
# Relative to the largest value: products of up to 128 channels.
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 2**-8}

Shape = tuple[int, int, int, int, tuple[int, int]]


def sample_inputs(device: str, dtype: torch.dtype = torch.float32, shape: Shape = SHAPES[2]) -> list[Tensor]:
    B, C, F, T, _ = shape
    generator = torch.Generator().manual_seed(C + T)
    x = torch.randn((B, C, F, T), generator=generator) * 3
    weight = torch.randn((C, C), generator=generator) / max(C, 1) ** 0.5
    bias = torch.randn((C,), generator=generator)
    return [tensor.to(device, dtype) for tensor in (x, weight, bias)]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [*SHAPES, EMPTY], ids=str)
def test_values_and_gradients(device: str, dtype: torch.dtype, shape: Shape) -> None:
    pool = shape[4]
    inputs = sample_inputs(device, dtype, shape)
    leaves = [x.requires_grad_() for x in inputs]
    doubles = [x.detach().cpu().double().requires_grad_() for x in inputs]
    out = ops.glu_pool(*leaves, pool, backend="native")
    wanted = ops.glu_pool_reference(*doubles, pool)
    assert out.dtype == dtype and out.shape == wanted.shape
    assert error(out, wanted) < TOLERANCE[dtype]
    if out.numel() == 0:
        out.sum().backward()
        assert all(x.grad is not None and not x.grad.any() for x in leaves)
        return
    check_gradients(out, leaves, wanted, doubles, 4 * TOLERANCE[dtype])


def test_gradcheck(device: str) -> None:
    for shape in [(1, 5, 3, 7, (2, 3)), (2, 3, 4, 5, (2, 2))]:
        inputs = [x.requires_grad_() for x in sample_inputs(device, torch.float64, shape)]
        assert torch.autograd.gradcheck(partial(ops.glu_pool, pool=shape[4], backend="native"), inputs)


def test_float32_weights_with_bfloat16_activations(device: str) -> None:
    """As autocast has it."""
    x, weight, bias = sample_inputs(device)
    out = ops.glu_pool(x.bfloat16(), weight, bias, (2, 3), backend="native")
    x, weight = x.bfloat16(), weight.bfloat16()
    wanted = ops.glu_pool_reference(x.cpu().double(), weight.cpu().double(), bias.cpu().double(), (2, 3))
    assert out.dtype == torch.bfloat16 and error(out, wanted) < TOLERANCE[torch.bfloat16]


def test_extreme_gates(device: str) -> None:
    """A gate far below 0 is shut and one far above is open, without overflow."""
    x = torch.tensor([-1e4, -200.0, -88.0, 0.0, 88.0, 200.0, 1e4], device=device).view(1, 1, 1, -1).requires_grad_()
    weight, bias = torch.zeros(1, 1, device=device), torch.ones(1, device=device)
    out = ops.glu_pool(x, weight, bias, (1, 1), backend="native")
    (grad,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(out, torch.sigmoid(x.detach()), rtol=1e-6, atol=1e-37)
    assert grad.isfinite().all() and grad[..., [0, -1]].abs().max() < 1e-30


def test_nan_spoils_its_position_alone(device: str) -> None:
    x, weight, bias = sample_inputs(device, shape=(1, 5, 4, 40, (1, 1)))
    x[0, 2, 1, 7] = torch.nan
    out = ops.glu_pool(x, weight, bias, (1, 1), backend="native")
    assert out[..., 1, 7].isnan().all() and out.isnan().sum() == 5


def test_strided_views(device: str) -> None:
    x, weight, bias = sample_inputs(device)
    view = x.transpose(2, 3).contiguous().transpose(2, 3)
    strided = ops.glu_pool(view, weight.t().contiguous().t(), bias, (2, 3), backend="native")
    assert torch.equal(strided, ops.glu_pool(x, weight, bias, (2, 3), backend="native"))


def test_layout(device: str, kernels: str) -> None:
    """Channels-last memory changes no bit, and is what the CPU's kernels write."""
    x, weight, bias = sample_inputs(device)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        leaf = x.contiguous(memory_format=memory_format).requires_grad_()
        out = ops.glu_pool(leaf, weight, bias, (2, 3), backend="native")
        grad = torch.ops.task_aware.glu_pool_backward(torch.ones_like(out), leaf.detach(), weight, bias, 2, 3)
        results.append((out, grad))
        written = torch.channels_last if kernels == "cpu" else torch.contiguous_format
        assert out.is_contiguous(memory_format=written) and grad.is_contiguous(memory_format=written)
    for contiguous, channels_last in zip(*results, strict=True):
        assert torch.equal(contiguous, channels_last)


def test_opcheck(device: str) -> None:
    inputs = [x.requires_grad_() for x in sample_inputs(device)]
    torch.library.opcheck(torch.ops.task_aware.glu_pool.default, (*inputs, 2, 3))


def test_compiles_as_one_graph(device: str) -> None:
    inputs = [x.requires_grad_() for x in sample_inputs(device)]
    compiled = torch.compile(ops.glu_pool, fullgraph=True, backend="aot_eager")
    results = [function(*inputs, (2, 3)) for function in (compiled, ops.glu_pool)]
    grads = [torch.autograd.grad(result.square().sum(), inputs) for result in results]
    assert torch.equal(*results)
    torch.testing.assert_close(*grads)


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": torch.zeros(5, 7, 45)}, ValueError, r"x is \[5,7,45\], expected \[B,C,F,T\]"),
    ({"weight": torch.zeros(5, 4)}, ValueError, r"weight is \[5,4\], expected \[C,C\] = \[5,5\]"),
    ({"bias": torch.zeros(4)}, ValueError, r"bias is \[4\], expected \[C\] = \[5\]"),
    ({"x": torch.zeros(3, 5, 7, 45, dtype=torch.int64)}, TypeError, "x is torch.int64, expected float32"),
    ({"bias": torch.zeros(5, device="meta")}, ValueError, "bias is on meta and x is on cpu"),
    ({"x": torch.zeros(3, 5, 1, 45)}, ValueError, r"x is \[3,5,1,45\], which is too small for a pool of \(2, 3\)"),
    ({"pool": (0, 2)}, ValueError, r"pool is \(0, 2\)"),
    ({"pool": (1, 33)}, ValueError, r"pool is \(1, 33\), expected .* time at most 32"),
    ({"backend": "fast"}, ValueError, "backend is 'fast'"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED)
def test_refusals(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    arguments = dict(zip(("x", "weight", "bias"), sample_inputs("cpu"), strict=True)) | {"pool": (2, 3)}
    with pytest.raises(kind, match=message):
        ops.glu_pool(**{**arguments, **change})
