"""depthwise_prelu against its definition in float64, its gradients, and what it must refuse."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from task_aware import ops
from task_aware.models.separator import MaskNetwork, preset

from .accuracy import check_gradients, error

# (B, C, T, dilation): one of everything, incomplete vectors, dilations shorter and longer than the row.
SHAPES = [(1, 1, 1, 1), (2, 3, 45, 1), (3, 5, 64, 16), (2, 4, 7, 9), (1, 33, 130, 2), (4, 2, 314, 128)]
EMPTY = (0, 4, 8, 2)
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 2**-8}

Shape = tuple[int, int, int, int]


def sample_inputs(device: str, dtype: torch.dtype = torch.float32, shape: Shape = SHAPES[1]) -> list[Tensor]:
    B, C, T, _ = shape
    generator = torch.Generator().manual_seed(C + T)
    shapes = [(B, C, T), (C, 3), (C,), (1,)]
    return [torch.randn(size, generator=generator).to(device, dtype) for size in shapes]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [*SHAPES, EMPTY], ids=str)
def test_values_and_gradients(device: str, dtype: torch.dtype, shape: Shape) -> None:
    leaves = [x.requires_grad_() for x in sample_inputs(device, dtype, shape)]
    doubles = [x.detach().cpu().double().requires_grad_() for x in leaves]
    out = ops.depthwise_prelu(*leaves, shape[3], backend="native")
    wanted = ops.depthwise_prelu_reference(*doubles, shape[3])
    assert out.dtype == dtype and out.shape == wanted.shape
    assert error(out, wanted.detach()) < TOLERANCE[dtype]
    check_gradients(out, leaves, wanted, doubles, 4 * TOLERANCE[dtype])


def test_gradcheck(device: str) -> None:
    for shape in [(2, 3, 5, 1), (1, 2, 20, 3)]:
        inputs = [x.requires_grad_() for x in sample_inputs(device, torch.float64, shape)]
        assert torch.autograd.gradcheck(partial(ops.depthwise_prelu, dilation=shape[3], backend="native"), inputs)


def test_at_the_kink(device: str) -> None:
    """At 0 the gradient is the negative side's, as torch's PReLU has it."""
    x = torch.zeros(1, 1, 3, device=device, requires_grad=True)
    weight, bias, slope = (torch.tensor(values, device=device) for values in ([[0.0, 1.0, 0.0]], [0.0], [0.25]))
    (grad,) = torch.autograd.grad(ops.depthwise_prelu(x, weight, bias, slope, backend="native").sum(), x)
    (wanted,) = torch.autograd.grad(ops.depthwise_prelu_reference(x, weight, bias, slope, 1).sum(), x)
    assert torch.equal(grad, wanted)


def test_nan_spoils_its_neighbours_alone(device: str) -> None:
    x, *weights = sample_inputs(device, shape=(1, 3, 64, 5))
    x[0, 1, 20] = torch.nan
    out = ops.depthwise_prelu(x, *weights, 5, backend="native")
    assert out[0, 1, [15, 20, 25]].isnan().all() and out.isnan().sum() == 3


def test_infinity_stays_in_its_row(device: str) -> None:
    x, *weights = sample_inputs(device, shape=(1, 2, 20, 3))
    x[0, 0, 19] = torch.inf
    out = ops.depthwise_prelu(x, *weights, 3, backend="native")
    assert out[0, 1].isfinite().all() and not out[0, 0, [16, 19]].isfinite().any()


def test_strided_views(device: str) -> None:
    x, weight, bias, slope = sample_inputs(device)
    views = x.mT.contiguous().mT, weight.t().contiguous().t(), bias.repeat_interleave(2)[::2], slope
    strided = ops.depthwise_prelu(*views, backend="native")
    assert torch.equal(strided, ops.depthwise_prelu(x, weight, bias, slope, backend="native"))


def test_opcheck(device: str) -> None:
    inputs = [x.requires_grad_() for x in sample_inputs(device)]
    torch.library.opcheck(torch.ops.task_aware.depthwise_prelu.default, (*inputs, 2))


def test_compiles_as_one_graph(device: str) -> None:
    inputs = [x.requires_grad_() for x in sample_inputs(device)]
    compiled = torch.compile(ops.depthwise_prelu, fullgraph=True, backend="aot_eager")
    results = [function(*inputs, 2) for function in (compiled, ops.depthwise_prelu)]
    grads = [torch.autograd.grad(result.square().sum(), inputs) for result in results]
    assert torch.equal(*results)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("causal", [False, True])
def test_a_mask_network_is_the_same_with_either(device: str, causal: bool) -> None:
    """Outputs and the gradients of all weights."""
    results = []
    backends: tuple[ops.Backend, ...] = ("native", "reference")
    for backend in backends:
        torch.manual_seed(0)
        network = MaskNetwork(preset("small", n_mels=8, n_sources=2, causal=causal)).double().to(device)
        network.backend = backend
        out = network(torch.randn(2, 8, 50).double().to(device))
        out.square().mean().backward()
        results.append([out, *(weight.grad for weight in network.parameters() if weight.grad is not None)])
    for native, reference in zip(*results, strict=True):
        assert error(native, reference.cpu()) < 1e-9


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": torch.zeros(3, 45)}, ValueError, r"x is \[3,45\], expected \[B,C,T\]"),
    ({"weight": torch.zeros(3, 5)}, ValueError, r"weight is \[3,5\], expected \[C,3\] = \[3,3\]"),
    ({"bias": torch.zeros(4)}, ValueError, r"bias is \[4\], expected \[C\] = \[3\]"),
    ({"slope": torch.zeros(3)}, ValueError, r"slope is \[3\], expected \[1\]"),
    ({"bias": torch.zeros(3, dtype=torch.int64)}, TypeError, "bias is torch.int64, expected float32"),
    ({"bias": torch.zeros(3, device="meta")}, ValueError, "bias is on meta and x is on cpu"),
    ({"dilation": 0}, ValueError, "dilation is 0, expected at least 1"),
    ({"backend": "fast"}, ValueError, "backend is 'fast'"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED)
def test_refusals(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    arguments = dict(zip(("x", "weight", "bias", "slope"), sample_inputs("cpu"), strict=True))
    with pytest.raises(kind, match=message):
        ops.depthwise_prelu(**{**arguments, **change})
