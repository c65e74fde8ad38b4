"""reverb_mix against direct convolution in float64, its gradients, and what it must refuse."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from task_aware import ops
from task_aware.ops.reverb_mix import fast_fft_length

from .accuracy import error

# (B, S, N, L): one of everything, odd and prime lengths, a response longer than the clip, several blocks.
SHAPES = [(1, 1, 1, 1), (2, 3, 1000, 100), (1, 2, 977, 33), (2, 2, 50, 90), (1, 2, 12289, 4099), (1, 3, 7, 1)]
EMPTY = [(0, 2, 10, 3), (2, 0, 10, 3), (1, 2, 0, 3)]
# Relative to the loudest sample: one FFT forth and back.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 4e-15, torch.bfloat16: 2**-8}


def sample_inputs(
    device: str, dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (2, 3, 100, 20)
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    B, S, N, L = shape
    sources = torch.randn((B, S, N), generator=generator)
    rirs = torch.randn((B, S, L), generator=generator) * torch.exp(-5 * torch.arange(L) / L)
    gains = torch.randn((B, S), generator=generator)
    background = torch.randn((B, N), generator=generator)
    return [x.to(device, dtype) for x in (sources, rirs, gains, background)]


def direct(sources: Tensor, rirs: Tensor, gains: Tensor, background: Tensor | None) -> ops.Mixture:
    """The definition, sample by sample, in float64."""
    B, S, N = sources.shape
    images = np.zeros((B, S, N))
    for b, s in np.ndindex(B, S):
        if N > 0:
            source, rir = sources[b, s].cpu().double().numpy(), rirs[b, s].cpu().double().numpy()
            images[b, s] = float(gains[b, s]) * np.convolve(source, rir)[:N]
    mixture = images.sum(1) + (0 if background is None else background.cpu().double().numpy())
    return ops.Mixture(torch.from_numpy(images), torch.from_numpy(mixture))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", SHAPES + EMPTY)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_values(device: str, dtype: torch.dtype, shape: tuple[int, ...], backend: Any) -> None:
    inputs = sample_inputs(device, dtype, shape)
    for arguments in (inputs, [*inputs[:3], None]):
        result = ops.reverb_mix(*arguments, backend=backend)
        wanted = direct(*arguments)
        for value, want in zip(result, wanted, strict=True):
            assert value.dtype == dtype and value.shape == want.shape
        # The mixture can cancel: its error is that of what was added.
        got = torch.cat([result.images, inputs[3][:, None], result.mixture[:, None]], 1)
        want = torch.cat([wanted.images, inputs[3][:, None].cpu(), wanted.mixture[:, None]], 1)
        assert error(got, want) < TOLERANCE[dtype]
        mixture = ops.reverb_mix(*arguments, images=False, backend=backend)
        assert mixture.dtype == dtype
        got = torch.cat([inputs[3][:, None], mixture[:, None]], 1)
        assert error(got, want[:, -2:]) < TOLERANCE[dtype] * cancellation(wanted)


def cancellation(wanted: ops.Mixture) -> float:
    """By how much the loudest sample of what is added exceeds that of the sum."""
    if wanted.images.numel() == 0:
        return 1.0
    return max(1.0, float(wanted.images.abs().max() / wanted.mixture.abs().max()))


def test_error_is_that_of_one_fft(device: str, kernels: str) -> None:
    inputs = sample_inputs(device, torch.float32, (2, 2, 40000, 3000))
    wanted = direct(*inputs)
    native, fft = (ops.reverb_mix(*inputs, backend=name).images.cpu() for name in ("native", "reference"))
    native_error, fft_error = ((x.double() - wanted.images).square().mean().sqrt() for x in (native, fft))
    # On CUDA these are two FFTs of different radices, each as good as the other up to chance.
    assert native_error <= (1.1 if kernels == "cpu" else 1.5) * fft_error


@pytest.mark.parametrize("shape", SHAPES + EMPTY)
@pytest.mark.parametrize("which", ["both", "images", "mixture", "mixture alone"])
def test_gradients(device: str, shape: tuple[int, ...], which: str) -> None:
    inputs = [x.requires_grad_() for x in sample_inputs(device, torch.float32, shape)]
    doubles = [x.detach().cpu().double().requires_grad_() for x in inputs]
    results = ops.reverb_mix(*inputs, backend="native"), ops.reverb_mix_reference(*doubles)
    used = {"both": (0, 1), "images": (0,), "mixture": (1,), "mixture alone": (1,)}[which]
    grads = [torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) for x in results[0]]
    if which == "mixture alone":
        results = (results[0].images, ops.reverb_mix(*inputs, images=False, backend="native")), results[1]
    got, want = (
        torch.autograd.grad(
            [result[i] for i in used], tensors, [grads[i].to(result[i]) for i in used], allow_unused=True
        )
        for result, tensors in zip(results, (inputs, doubles), strict=True)
    )
    for value, wish in zip(got, want, strict=True):
        if wish is None:
            assert value is None or not value.any()
        else:  # a gain's gradient is a sum over all N
            assert value.shape == wish.shape and error(value, wish) < (1e-5 if wish.dim() == 2 else 2e-6)


def test_gradcheck(device: str) -> None:
    for shape in [(2, 2, 9, 4), (1, 2, 3, 6)]:
        inputs = [x.requires_grad_() for x in sample_inputs(device, torch.float64, shape)]
        for images in (True, False):
            assert torch.autograd.gradcheck(partial(ops.reverb_mix, images=images, backend="native"), inputs)


def test_only_the_gradients_asked_for(device: str) -> None:
    sources, rirs, gains, background = sample_inputs(device)
    gains.requires_grad_()
    ops.reverb_mix(sources, rirs, gains, background, backend="native").mixture.sum().backward()
    assert gains.grad is not None and sources.grad is None


def test_a_click_is_its_room(device: str) -> None:
    sources, rirs, gains, _ = sample_inputs(device, torch.float64, (1, 2, 300, 40))
    sources.zero_()[:, :, 270] = 1
    images = ops.reverb_mix(sources, rirs, gains, backend="native").images
    torch.testing.assert_close(images[..., 270:], gains[..., None] * rirs[..., :30])
    assert images[..., :270].abs().max() < 1e-14  # causal: no event moves before its label


def test_silence_and_zero_gains_stay_exactly_silent(device: str) -> None:
    sources, rirs, gains, background = sample_inputs(device)
    gains[0, 1] = 0
    sources[1, 2] = 0
    result = ops.reverb_mix(sources, rirs, gains, background, backend="native")
    assert not result.images[0, 1].any() and not result.images[1, 2].any()
    # The gain of 0 still has its gradient.
    gains.requires_grad_()
    images = ops.reverb_mix(sources, rirs, gains, background, backend="native").images
    (grad,) = torch.autograd.grad(images[0, 1].sum(), gains)
    wanted = np.convolve(sources[0, 1].cpu().numpy(), rirs[0, 1].cpu().numpy())[:100].sum()
    assert grad[0, 1].item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("images", [True, False])
def test_silent_stretches_are_exactly_silent_and_the_rest_is_right(device: str, images: bool) -> None:
    """Sources that sound in one part of the clip: before, between and after it, several blocks hold nothing."""
    B, S, N, L = 2, 3, 60000, 500
    sources, rirs, gains, background = sample_inputs(device, torch.float32, (B, S, N, L))
    for s, (first, last) in enumerate([(0, 700), (31000, 33000), (59000, N)]):
        sources[:, s, :first] = 0
        sources[:, s, last:] = 0
    sources[1, 1] = 0
    wanted = direct(sources, rirs, gains, background)
    if images:
        result = ops.reverb_mix(sources, rirs, gains, background, backend="native")
        assert error(result.images, wanted.images) < 1e-6 and error(result.mixture, wanted.mixture) < 1e-6
        assert not result.images[0, 0, 30000:].any() and not result.images[0, 1, :20000].any()
        assert not result.images[1, 1].any()
    else:
        mixture = ops.reverb_mix(sources, rirs, gains, background, images=False, backend="native")
        assert error(mixture, wanted.mixture) < 1e-6
        assert torch.equal(mixture[:, 10000:20000], background[:, 10000:20000])


def test_the_mixture_is_the_sum_of_what_is_returned(device: str) -> None:
    sources, rirs, gains, background = sample_inputs(device, torch.float32, (2, 5, 5000, 700))
    result = ops.reverb_mix(sources, rirs, gains, background, backend="native")
    torch.testing.assert_close(result.mixture, background + result.images.sum(1), rtol=0, atol=1e-5)


def test_clipping_samples(device: str) -> None:
    sources, rirs, gains, background = sample_inputs(device)
    arguments = (sources.sign() * 32768, rirs, gains, background)
    assert error(ops.reverb_mix(*arguments, backend="native").images, direct(*arguments).images) < 1e-6


def test_strided_views(device: str) -> None:
    sources, rirs, gains, background = sample_inputs(device, shape=(2, 3, 100, 20))
    views = (
        sources.repeat_interleave(2, -1)[..., ::2],
        rirs[:, :1].expand(2, 3, 20),
        gains.t().contiguous().t(),
        background[:1].expand(2, 100),
    )
    strided = ops.reverb_mix(*views, backend="native")
    packed = ops.reverb_mix(*(x.contiguous() for x in views), backend="native")
    assert torch.equal(strided.images, packed.images) and torch.equal(strided.mixture, packed.mixture)


def test_opcheck(device: str) -> None:
    module = importlib.import_module("task_aware.ops.reverb_mix")  # ops.reverb_mix is the function
    inputs = [x.requires_grad_() for x in sample_inputs(device)]
    roots = module._roots(torch.float32, torch.device(device)) if module.served_by_cuda(inputs[0]) else None
    torch.library.opcheck(torch.ops.task_aware.reverb_mix.default, (*inputs, roots, True))
    torch.library.opcheck(torch.ops.task_aware.reverb_mix.default, (*inputs[:3], None, roots, False))


def test_compiles_as_one_graph(device: str) -> None:
    inputs = [x.requires_grad_() for x in sample_inputs(device)]
    compiled = torch.compile(ops.reverb_mix, fullgraph=True, backend="aot_eager")
    results = [function(*inputs) for function in (compiled, ops.reverb_mix)]
    grads = [torch.autograd.grad(result.mixture.square().sum(), inputs) for result in results]
    assert torch.equal(results[0].images, results[1].images)
    torch.testing.assert_close(*grads)


@pytest.mark.gpu
def test_cuda_graph_repeats_the_same_bits() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU here")
    inputs = sample_inputs("cuda", torch.float32, (4, 5, 160000, 16000))
    eager = ops.reverb_mix(*inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.reverb_mix(*inputs)
    for _ in range(3):
        graph.replay()
        assert torch.equal(captured.mixture, eager.mixture)


def test_fast_lengths_are_the_smallest_of_their_kind() -> None:
    smooth = sorted(2**a * 3**b * 5**c for a in range(1, 12) for b in range(7) for c in range(5))
    for minimum in (1, 2, 3, 7, 97, 251, 1000, 1021):
        assert fast_fft_length(minimum) == next(length for length in smooth if length >= minimum)


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"sources": torch.zeros(3, 100)}, ValueError, r"sources is \[3,100\], expected \[B,S,N\]"),
    ({"rirs": torch.zeros(2, 2, 20)}, ValueError, r"rirs is \[2,2,20\], expected \[B,S,L\] = \[2,3,L\]"),
    ({"rirs": torch.zeros(2, 3, 0)}, ValueError, r"rirs is \[2,3,0\], .* L >= 1"),
    ({"gains": torch.zeros(2, 3, 1)}, ValueError, r"gains is \[2,3,1\], expected \[B,S\] = \[2,3\]"),
    ({"background": torch.zeros(2, 99)}, ValueError, r"background is \[2,99\], expected \[B,N\] = \[2,100\]"),
    ({"rirs": torch.zeros(2, 3, 20).double()}, TypeError, "rirs is torch.float64, expected torch.float32"),
    ({"gains": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "gains is torch.int64, expected float32"),
    ({"gains": 1.0}, TypeError, "gains is float, expected a torch.Tensor"),
    ({"rirs": torch.zeros(2, 3, 20, device="meta")}, ValueError, "rirs is on meta and sources is on cpu"),
    ({"backend": "fast"}, ValueError, "backend is 'fast'"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED)
def test_refusals(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    names = ("sources", "rirs", "gains", "background")
    arguments = dict(zip(names, sample_inputs("cpu"), strict=True))
    with pytest.raises(kind, match=message):
        ops.reverb_mix(**{**arguments, **change})
