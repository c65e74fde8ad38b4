"""What all operators do where their caller has set something: autocast, or derivatives of another kind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
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

HIDDEN: list[tuple[int, ...]] = [(3,), (1,), (3,), (3,)]

#: A call of each operator, and the shapes of the tensors that it has a derivative in.
CALLS: dict[str, tuple[Call, list[tuple[int, ...]]]] = {
    "conv3x3": (ops.conv3x3, [(1, 2, 4, 5), (3, 2, 3, 3), (3,)]),
    "conv_block": (
        lambda *x, backend: ops.conv_block(*x, 1, backend=backend),
        [(1, 2, 5), (1, 2, 5), (3, 2), *HIDDEN, (3, 3), *HIDDEN, (2, 3), (2,), (2, 3), (2,)],
    ),
    "conv_glu_pool": (
        lambda *x, backend: ops.conv_glu_pool(*x, (2, 2), backend=backend),
        [(1, 4, 4), (2, 3, 3), (2,), (2, 2), (2,)],
    ),
    "depthwise_prelu": (ops.depthwise_prelu, [(1, 2, 5), (2, 3), (2,), (1,)]),
    "glu_pool": (lambda *x, backend: ops.glu_pool(*x, (2, 2), backend=backend), [(1, 2, 4, 4), (2, 2), (2,)]),
    "gru_scan": (ops.gru_scan, [(1, 4, 2, 6), (2, 6, 2), (2, 6)]),
    "mask_resynthesis": (
        lambda *x, backend: ops.mask_resynthesis(*x, n_fft=64, hop=16, backend=backend),
        [(1, 80), (1, 2, 4, 6)],
    ),
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


def second_derivatives(name: str, backend: str, among: set[int]) -> tuple[Tensor, ...]:
    """Of a weighted sum of the gradients of a weighted sum: to the inputs ``among``, and to the first weights."""
    generator = torch.Generator().manual_seed(1)

    def weights(tensors: Iterable[Tensor]) -> list[Tensor]:
        return [torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in tensors]

    def weighted(tensors: Iterable[Tensor], by: list[Tensor]) -> Tensor:
        return torch.stack([(w * x).sum() for w, x in zip(by, tensors, strict=True)]).sum()

    inputs = sample(name, torch.float64)
    leaves = [x.requires_grad_() for k, x in enumerate(inputs) if k in among]
    results = outputs(CALLS[name][0](*inputs, backend=backend))
    first = [w.requires_grad_() for w in weights(results)]
    grads = torch.autograd.grad(weighted(results, first), leaves, create_graph=True)
    total = weighted(grads, weights(leaves))
    return torch.autograd.grad(total, [*leaves, *first], allow_unused=True, materialize_grads=True)


@each_operator
def test_second_derivatives_are_right_or_refused(name: str) -> None:
    """PyTorch would take those through a kernel's backward to be zero."""
    refused = []
    count = len(CALLS[name][1])
    for among in [*({k} for k in range(count)), set(range(count))]:
        try:
            native = second_derivatives(name, "native", among)
        except NotImplementedError as error:
            assert str(error) == f"{name}: the native kernels have no second derivatives; use backend='reference'."
            refused.append(among)
        else:
            wanted = second_derivatives(name, "reference", among)
            torch.testing.assert_close(native, wanted, rtol=1e-9, atol=1e-11)
    if name in ("mel_spectrogram", "reorder", "reverb_mix"):
        assert not refused


def test_the_gradient_to_a_gradient_of_features_that_depend_on_the_weights() -> None:
    """Each derivative of conv_glu_pool is that of one argument, whatever its others were made of."""
    features, *weights = sample("conv_glu_pool", torch.float64)
    kernel = weights[0].requires_grad_()
    grads = [
        torch.autograd.grad(ops.conv_glu_pool(features * kernel.sum(), *weights, (2, 2), backend=backend).sum(), kernel)
        for backend in ("native", "reference")
    ]
    torch.testing.assert_close(*grads)


@each_operator
def test_torch_func_is_refused_by_the_kernels_and_served_by_the_references(name: str) -> None:
    """PyTorch would speak of a method ``setup_context``, which the caller does not have."""
    call, _ = CALLS[name]
    inputs = tuple(sample(name, torch.float64))
    everything = tuple(range(len(inputs)))

    def total(*tensors: Tensor, backend: str = "native") -> Tensor:
        return torch.stack([x.square().sum() for x in outputs(call(*tensors, backend=backend))]).sum()

    message = f"{name}: the native kernels have no derivatives by torch.func .* or backend='reference'"
    for transform in (torch.func.grad, torch.func.jacrev):
        with pytest.raises(NotImplementedError, match=message):
            transform(total, everything)(*inputs)
    with pytest.raises(NotImplementedError, match=message):
        torch.func.vjp(total, *inputs)
    leaves = [x.clone().requires_grad_() for x in inputs]
    wanted = torch.autograd.grad(total(*leaves), leaves)
    found = torch.func.grad(partial(total, backend="reference"), everything)(*inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@each_operator
def test_forward_mode_over_reverse_mode_is_right_or_refused(name: str) -> None:
    """The gradient is linear in what comes back to the outputs, so that its tangent is the gradient of a tangent."""
    inputs = [x.requires_grad_() for x in sample(name, torch.float64)]
    results = outputs(CALLS[name][0](*inputs, backend="native"))
    backs = [x.detach() for x in results]
    try:
        with forward_ad.dual_level():
            duals = [forward_ad.make_dual(torch.ones_like(x), x) for x in backs]
            found = [forward_ad.unpack_dual(x).tangent for x in torch.autograd.grad(results, inputs, duals, True)]
    except NotImplementedError as error:
        assert f"{name}: the native kernels have no forward-mode derivatives" in str(error)
    else:
        torch.testing.assert_close(found, list(torch.autograd.grad(results, inputs, backs)))


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


FORKED = """
import os, signal, torch
from task_aware import ops

def use():
    torch.rand(4, 100_000).exp().sum()
    ops.reorder(torch.rand(8, 2, 50_000), torch.tensor([[1, 0]] * 8))

torch.set_num_threads(2)
use()
child = os.fork()
if child == 0:
    signal.alarm(60)
    use()
    os._exit(torch.get_num_threads())
use()
print(os.waitpid(child, 0)[1], torch.get_num_threads())
"""


def test_a_process_forked_after_the_use_of_threads_does_not_wait_for_them() -> None:
    """As `multiprocessing` does on Linux: its processes may use a predictor that their parent has used."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    found = subprocess.run([sys.executable, "-c", FORKED], env=environment, capture_output=True, text=True, timeout=300)
    status, threads = map(int, found.stdout.split())
    assert not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGALRM, "the child waited for ever"
    assert (os.WEXITSTATUS(status), threads) == (2, 2), found.stderr
