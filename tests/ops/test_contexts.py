"""What all operators do where their caller has set something: autocast, or derivatives in forward mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from task_aware import ops
from task_aware.ops import _extension

# Both are settled before a kernel is chosen, so that those of the CPU speak for all.
pytestmark = pytest.mark.skipif(not _extension.extension.cpu, reason="no CPU kernels")

Call = Callable[..., Any]

#: A call of each operator, and the shapes of the tensors that it has a derivative in.
CALLS: dict[str, tuple[Call, list[tuple[int, ...]]]] = {
    "conv_glu_pool": (
        lambda *x, backend: ops.conv_glu_pool(*x, (2, 2), backend=backend),
        [(1, 4, 4), (2, 3, 3), (2,), (2, 2), (2,)],
    ),
    "depthwise_prelu": (ops.depthwise_prelu, [(1, 2, 5), (2, 3), (2,), (1,)]),
    "glu_pool": (lambda *x, backend: ops.glu_pool(*x, (2, 2), backend=backend), [(1, 2, 4, 4), (2, 2), (2,)]),
    "gru_scan": (ops.gru_scan, [(1, 4, 2, 6), (2, 6, 2), (2, 6)]),
    "mel_mask": (
        lambda *x, backend: ops.mel_mask(*x, torch.zeros(4).to(x[1]), torch.ones(4).to(x[1]), backend=backend),
        [(1, 2, 4, 5), (1, 4, 5)],
    ),
    "mel_spectrogram": (
        lambda x, backend: ops.mel_spectrogram(x, n_fft=64, hop=16, n_mels=4, backend=backend),
        [(1, 80)],
    ),
    "pit_loss": (lambda *x, backend: ops.pit_loss(*x, backend=backend).loss, [(1, 2, 5), (1, 2, 5)]),
    "reorder": (lambda x, backend: ops.reorder(x, torch.tensor([[1, 0]]), backend=backend), [(1, 2, 5)]),
    "reverb_mix": (ops.reverb_mix, [(1, 2, 16), (1, 2, 3), (1, 2), (1, 16)]),
}

each_operator = pytest.mark.parametrize("name", CALLS)
each_backend = pytest.mark.parametrize("backend", ["native", "reference"])


def sample(name: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(shape, generator=generator, dtype=dtype) + 0.1 for shape in CALLS[name][1]]


def outputs(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def test_all_operators_are_here() -> None:
    assert set(CALLS) == {name.removesuffix("_reference") for name in ops.__all__ if name.endswith("_reference")}


@each_backend
@each_operator
def test_autocast_changes_nothing(name: str, backend: str) -> None:
    call = CALLS[name][0]
    plain = [x.requires_grad_() for x in sample(name)]
    within = [x.requires_grad_() for x in sample(name)]
    expected = outputs(call(*plain, backend=backend))
    with torch.autocast("cpu", torch.bfloat16):
        found = outputs(call(*within, backend=backend))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for result in (expected, found):
        torch.autograd.backward([x.sum() for x in result])
    for x, other in zip(within, plain, strict=True):
        torch.testing.assert_close(x.grad, other.grad, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in CALLS if name != "reverb_mix"])  # which is for one dtype
def test_each_gradient_has_the_dtype_of_its_input(name: str) -> None:
    """As within autocast, where activations are bfloat16 and weights float32; values to bfloat16's rounding."""
    grads = {}
    for backend in ("native", "reference"):
        first, *rest = sample(name)
        inputs = [x.requires_grad_() for x in (first.bfloat16(), *rest)]
        torch.autograd.backward([x.float().sum() for x in outputs(CALLS[name][0](*inputs, backend=backend))])
        grads[backend] = [x.grad for x in inputs]
        assert [x.grad.dtype for x in inputs] == [x.dtype for x in inputs]
    for native, reference in zip(grads["native"], grads["reference"], strict=True):
        torch.testing.assert_close(native, reference, rtol=2e-2, atol=2e-2 * float(reference.abs().amax()))


@each_operator
def test_forward_mode_is_refused_by_the_kernels(name: str) -> None:
    """PyTorch would take the derivative to be zero."""
    call, _ = CALLS[name]
    inputs = sample(name)
    message = f"{name}: the native kernels have no forward-mode derivatives; use reverse mode"
    for k, x in enumerate(inputs):

        def of_one(one: Tensor, k: int = k) -> Any:
            return call(*inputs[:k], one, *inputs[k + 1 :], backend="native")

        with pytest.raises(NotImplementedError, match=message), forward_ad.dual_level():
            of_one(forward_ad.make_dual(x, torch.ones_like(x)))
        with pytest.raises(NotImplementedError, match=message):
            torch.func.jvp(of_one, (x,), (torch.ones_like(x),))
    with forward_ad.dual_level():
        call(*inputs, backend="native")  # of no dual numbers there is nothing to refuse


@each_operator
def test_the_references_have_derivatives_in_forward_mode(name: str) -> None:
    call, _ = CALLS[name]
    inputs = tuple(sample(name, torch.float64))
    generator = torch.Generator().manual_seed(1)
    tangents = tuple(torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in inputs)

    def reference(*tensors: Tensor) -> tuple[Tensor, ...]:
        return outputs(call(*tensors, backend="reference"))

    _, found = torch.func.jvp(reference, inputs, tangents)
    h = 1e-6
    after, before = (reference(*(x + step * t for x, t in zip(inputs, tangents, strict=True))) for step in (h, -h))
    for tangent, a, b in zip(found, after, before, strict=True):
        torch.testing.assert_close(tangent, (a - b) / (2 * h), rtol=1e-5, atol=1e-6)
