"""conv_block against its definition in float64, its gradients, and what it must refuse."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from task_aware import ops
from task_aware.models.separator import MaskNetwork, preset
from task_aware.ops import _extension

from .accuracy import check_gradients, error

if not _extension.extension.cpu:
    pytest.skip(f"no CPU kernels: {_extension.extension.cpu_absent}", allow_module_level=True)

# (B, C, H, S, T, dilation): few of everything, incomplete vectors and panels, dilations shorter and longer than the
# item, one chunk of 48 frames and several.
SHAPES = [
    (1, 2, 4, 2, 5, 1),
    (2, 3, 5, 4, 45, 1),
    (3, 16, 32, 16, 48, 16),
    (2, 5, 7, 3, 7, 9),
    (1, 33, 40, 17, 130, 2),
    (4, 20, 49, 34, 101, 64),
]
EMPTY = (0, 4, 8, 2, 5, 1)
TOLERANCE = {torch.float32: 4e-6, torch.float64: 1e-13, torch.bfloat16: 2e-2}

Shape = tuple[int, int, int, int, int, int]
NAMES = ["x", "total", "expand", "bias1", "slope1", "gain1", "shift1", "depth", "depth_bias", "slope2", "gain2"]
NAMES += ["shift2", "residual", "bias_out", "skip", "bias_skip"]


def sample_inputs(dtype: torch.dtype = torch.float32, shape: Shape = SHAPES[1]) -> list[Tensor]:
    B, C, H, S, T, _ = shape
    generator = torch.Generator().manual_seed(H + T)
    hidden = [(H,), (1,), (H,), (H,)]
    shapes = [(B, C, T), (B, S, T), (H, C), *hidden, (H, 3), *hidden, (C, H), (C,), (S, H), (S,)]
    return [torch.randn(size, generator=generator).to(dtype) for size in shapes]


def together(result: tuple[Tensor, Tensor]) -> Tensor:
    return torch.cat(result, 1)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [*SHAPES, EMPTY], ids=str)
def test_values_and_gradients(dtype: torch.dtype, shape: Shape) -> None:
    leaves = [x.requires_grad_() for x in sample_inputs(dtype, shape)]
    doubles = [x.detach().double().requires_grad_() for x in leaves]
    out = together(ops.conv_block(*leaves, shape[5], backend="native"))
    wanted = together(ops.conv_block_reference(*doubles, shape[5]))
    assert out.dtype == dtype and out.shape == wanted.shape
    assert error(out, wanted.detach()) < TOLERANCE[dtype]
    check_gradients(out, leaves, wanted, doubles, 10 * TOLERANCE[dtype])


def test_a_single_element_is_its_own_mean() -> None:
    """No variance, so that the norms' outputs are their shifts, and nothing depends on x through them."""
    inputs = [x.requires_grad_() for x in sample_inputs(torch.float64, (1, 1, 1, 1, 1, 1))]
    results = [call(*inputs, 1) for call in (partial(ops.conv_block, backend="native"), ops.conv_block_reference)]
    for native, reference in zip(*results, strict=True):
        torch.testing.assert_close(native, reference)
    (grad,) = torch.autograd.grad(results[0][0].sum(), inputs[:1])
    torch.testing.assert_close(grad, torch.ones_like(grad))


def test_gradcheck() -> None:
    for shape in [(2, 2, 3, 2, 5, 1), (1, 1, 2, 2, 50, 3)]:
        inputs = [x.requires_grad_() for x in sample_inputs(torch.float64, shape)]
        call = partial(ops.conv_block, dilation=shape[5], backend="native")
        assert torch.autograd.gradcheck(call, inputs, fast_mode=True)


@pytest.mark.parametrize("used", [0, 1])
def test_one_output_may_be_unused(used: int) -> None:
    grads = []
    for call in (partial(ops.conv_block, backend="native"), ops.conv_block_reference):
        inputs = [x.requires_grad_() for x in sample_inputs(torch.float64)]
        call(*inputs, dilation=2)[used].square().sum().backward()
        grads.append([torch.zeros_like(x) if x.grad is None else x.grad for x in inputs])
    for native, reference in zip(*grads, strict=True):
        torch.testing.assert_close(native, reference)


def test_a_large_mean_does_not_spoil_the_variance() -> None:
    inputs = dict(zip(NAMES, sample_inputs(shape=(2, 16, 32, 16, 200, 1)), strict=True))
    inputs["bias1"] = 1000 + 0.1 * inputs["bias1"]
    inputs["depth_bias"] = 300 + 0.1 * inputs["depth_bias"]
    wanted = ops.conv_block_reference(*(x.double() for x in inputs.values()), 1)
    found = ops.conv_block(**inputs, dilation=1, backend="native")
    reference = ops.conv_block_reference(**inputs, dilation=1)
    assert error(together(found), together(wanted)) < 2 * error(together(reference), together(wanted)) + 1e-6


def test_a_constant_input_has_no_variance() -> None:
    """The norms divide by sqrt(eps) then, and neither of them by 0."""
    inputs = dict(zip(NAMES, sample_inputs(torch.float64), strict=True))
    for name in ("expand", "bias1", "depth", "depth_bias"):
        inputs[name] = torch.zeros_like(inputs[name])
    leaves = [x.requires_grad_() for x in inputs.values()]
    results = ops.conv_block(*leaves, 1, backend="native"), ops.conv_block_reference(*leaves, 1)
    grads = [torch.autograd.grad(together(result).square().sum(), leaves) for result in results]
    for native, reference in zip((*results[0], *grads[0]), (*results[1], *grads[1]), strict=True):
        torch.testing.assert_close(native, reference)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_item(value: float) -> None:
    x, *others = sample_inputs()
    clean = ops.conv_block(x, *others, 1, backend="native")
    x[0, 1, 20] = value
    spoilt = ops.conv_block(x, *others, 1, backend="native")
    for one, other in zip(clean, spoilt, strict=True):
        assert other[0].isnan().all() and torch.equal(one[1], other[1])


def test_strided_views() -> None:
    plain = sample_inputs()
    views = [x.repeat_interleave(2, -1)[..., ::2] for x in plain]
    last = [x.mT.contiguous().mT if x.dim() > 1 else x for x in plain]
    wanted = ops.conv_block(*plain, 2, backend="native")
    for strided in (views, last):
        for one, other in zip(wanted, ops.conv_block(*strided, 2, backend="native"), strict=True):
            assert torch.equal(one, other)


def test_threads_change_nothing_beyond_rounding() -> None:
    shape = (3, 16, 32, 16, 200, 4)
    results = []
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        inputs = [x.requires_grad_() for x in sample_inputs(shape=shape)]
        out = together(ops.conv_block(*inputs, 4, backend="native"))
        results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert error(one, two.double()) < 1e-6


def test_opcheck() -> None:
    inputs = [x.requires_grad_() for x in sample_inputs()]
    torch.library.opcheck(torch.ops.task_aware.conv_block.default, (*inputs, 2, 1e-8))


def test_compiles_as_one_graph() -> None:
    inputs = [x.requires_grad_() for x in sample_inputs()]
    compiled = torch.compile(ops.conv_block, fullgraph=True, backend="aot_eager")
    results = [together(function(*inputs, 2)) for function in (compiled, ops.conv_block)]
    grads = [torch.autograd.grad(result.square().sum(), inputs) for result in results]
    assert torch.equal(*results)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("causal", [False, True])
def test_a_mask_network_is_the_same_with_either(causal: bool) -> None:
    """Outputs and the gradients of all weights."""
    results = []
    backends: tuple[ops.Backend, ...] = ("native", "reference")
    for backend in backends:
        torch.manual_seed(0)
        network = MaskNetwork(preset("small", n_mels=8, n_sources=2, causal=causal)).double()
        network.backend = backend
        out = network(torch.randn(2, 8, 50).double())
        out.square().mean().backward()
        results.append([out, *(weight.grad for weight in network.parameters() if weight.grad is not None)])
    assert len(results[0]) == len(results[1])
    for native, reference in zip(*results, strict=True):
        assert error(native, reference) < 1e-9


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": torch.zeros(3, 45)}, ValueError, r"x is \[3,45\], expected \[B,C,T\]"),
    ({"total": torch.zeros(2, 4, 44)}, ValueError, r"total is \[2,4,44\], expected \[B,S,T\]"),
    ({"expand": torch.zeros(5, 4)}, ValueError, r"expand is \[5,4\], expected \[H,C\] = \[5,3\]"),
    ({"depth": torch.zeros(3, 5)}, ValueError, r"depth is \[3,5\], expected \[H,3\] = \[5,3\]"),
    ({"gain2": torch.zeros(4)}, ValueError, r"gain2 is \[4\], expected \[H\] = \[5\]"),
    ({"slope1": torch.zeros(5)}, ValueError, r"slope1 is \[5\], expected \[1\]"),
    ({"skip": torch.zeros(3, 5)}, ValueError, r"skip is \[3,5\], expected \[S,H\] = \[4,5\]"),
    ({"bias1": torch.zeros(5, dtype=torch.int64)}, TypeError, "bias1 is torch.int64, expected float32"),
    ({"bias1": torch.zeros(5, device="meta")}, ValueError, "bias1 is on meta and x is on cpu"),
    ({"dilation": 0}, ValueError, "dilation is 0, expected at least 1"),
    ({"backend": "fast"}, ValueError, "backend is 'fast'"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED)
def test_refusals(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = dict(zip(NAMES, sample_inputs(), strict=True)) | {"dilation": 1}
    with pytest.raises(kind, match=message):
        ops.conv_block(**{**arguments, **change})
