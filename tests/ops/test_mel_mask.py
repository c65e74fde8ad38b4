"""mel_mask against its reference in float64, its gradients, and what it must refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from task_aware import ops

from .accuracy import error

SHAPES = [(2, 3, 16, 37), (1, 1, 1, 1), (1, 5, 128, 33), (2, 2, 7, 129), (1, 2, 64, 200), (0, 2, 3, 4)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
# Relative to the largest value: a few roundings of the dtype (bfloat16 rounds only at the end).
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 2**-8}
OPTIONS = {"floor": 0.02, "amin": 1e-5, "top_db": 50.0}


def sample_inputs(
    device: str, dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (2, 3, 16, 37)
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    B, _, F, T = shape
    logits = 4 * torch.randn(shape, generator=generator)
    mel = 30 * torch.rand((B, F, T), generator=generator) ** 6  # from below amin to 30
    mean = -30 + 5 * torch.randn(F, generator=generator)
    std = 5 + 10 * torch.rand(F, generator=generator)
    mel[:, 0, 0], logits[:, :, 0, 0] = 40, 3  # one clear maximum: ties depend on the last bit
    return [x.to(device, dtype) for x in (logits, mel, mean, std)]


def in_double(*tensors: Tensor) -> list[Tensor]:
    return [x.detach().cpu().double().requires_grad_(x.requires_grad) for x in tensors]


def gradients(
    result: ops.MaskedMel, grads: tuple[Tensor | None, Tensor | None], inputs: list[Tensor]
) -> tuple[Tensor, ...]:
    used = [(out, grad.to(out)) for out, grad in zip(result, grads, strict=True) if grad is not None]
    return torch.autograd.grad([out for out, _ in used], inputs, [grad for _, grad in used])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_values(device: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    inputs = sample_inputs(device, dtype, shape)
    result = ops.mel_mask(*inputs, backend="native", **OPTIONS)
    wanted = ops.mel_mask_reference(*in_double(*inputs), **OPTIONS)
    for value, want in zip(result, wanted, strict=True):
        assert value.dtype == dtype and value.shape == shape and value.is_contiguous()
        assert error(value, want) < TOLERANCE[dtype]


def test_reference_is_the_decibel_formula() -> None:
    logits, mel, mean, std = sample_inputs("cpu", torch.float64)
    result = ops.mel_mask_reference(logits, mel, mean, std, **OPTIONS)
    masked = (0.02 + 0.98 / (1 + torch.exp(-logits))) * mel[:, None]
    decibels = 20 * torch.log10(masked.clamp(min=1e-5))
    decibels = decibels.maximum(decibels.amax((2, 3), keepdim=True) - 50)
    torch.testing.assert_close(result.mel, masked)
    torch.testing.assert_close(result.features, (decibels - mean[:, None]) / std[:, None])
    held = decibels == decibels.amin((2, 3), keepdim=True)
    assert (masked < 1e-5).any() and 100 < held.sum() < held.numel() / 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("which", ["both", "mel", "features"])
def test_gradients(device: str, dtype: torch.dtype, shape: tuple[int, ...], which: str) -> None:
    inputs = sample_inputs(device, dtype, shape)
    for x in inputs[:2]:
        x.requires_grad_()
    doubles = in_double(*inputs)
    wanted = ops.mel_mask_reference(*doubles, **OPTIONS)
    generator = torch.Generator().manual_seed(0)
    grad_mel = torch.randn(shape, generator=generator).to(dtype) if which != "features" else None
    grad_features = torch.randn(shape, generator=generator).to(dtype) if which != "mel" else None
    if grad_features is not None and wanted.mel.numel():
        # Within rounding of a threshold an element may fall on either side: it gets no gradient here.
        threshold = wanted.mel.amax((2, 3), keepdim=True) * 10 ** (-OPTIONS["top_db"] / 20)
        for limit in (threshold, torch.full_like(threshold, OPTIONS["amin"])):
            grad_features = grad_features.where((wanted.mel / limit - 1).abs() > 1e-5, 0)
    result = ops.mel_mask(*inputs, backend="native", **OPTIONS)
    got = gradients(result, (grad_mel, grad_features), inputs[:2])
    want = gradients(wanted, (grad_mel, grad_features), doubles[:2])
    for value, wish in zip(got, want, strict=True):
        assert value.dtype == dtype
        assert error(value, wish) < 4 * TOLERANCE[dtype]


def test_equal_maxima_share_what_is_held_below_them(device: str) -> None:
    # Three equal maxima and a value 60 dB below, held at 40 dB: the maxima get its gradient, a third each.
    logits = torch.full((1, 1, 1, 5), 100.0, device=device, dtype=torch.float64)
    mel = torch.tensor([[[1.0, 1.0, 1.0, 1e-3, 0.5]]], device=device, dtype=torch.float64, requires_grad=True)
    mean, std = mel.new_zeros(1), mel.new_full((1,), 2.0)
    share = 20 / math.log(10) / 2 / 3
    wanted = torch.tensor([[[share, share, share, 0, 0]]], dtype=torch.float64)
    for backend in ("native", "reference"):
        features = ops.mel_mask(logits, mel, mean, std, top_db=40.0, backend=backend).features
        (grad,) = torch.autograd.grad(features[0, 0, 0, 3], mel)
        assert features[0, 0, 0, 3].item() == pytest.approx(-20)
        torch.testing.assert_close(grad.cpu(), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("frames", [1, 15, 16, 17, 31, 33, 100, 257])
def test_the_maximum_is_found_again_in_the_backward(device: str, frames: int) -> None:
    """In float32 and wherever it lies: louder by e adds 20/ln 10 to every feature, also to those held."""
    logits, mel, mean, std = sample_inputs(device, torch.float32, (1, 3, 3, frames))
    mel = mel.clamp(min=1e-3).requires_grad_()
    features = ops.mel_mask(logits, mel, mean, torch.ones_like(std), top_db=20.0, backend="native").features
    (grad,) = torch.autograd.grad(features.sum(), mel)
    total = (grad.double() * mel.double()).sum().item()
    assert total == pytest.approx(features.numel() * 20 / math.log(10), rel=1e-5)


def test_gradcheck(device: str) -> None:
    logits, mel, mean, std = sample_inputs(device, torch.float64, (2, 2, 3, 4))
    mel = mel.clamp(min=0.1).requires_grad_()

    def function(logits: Tensor, mel: Tensor) -> ops.MaskedMel:
        return ops.mel_mask(logits, mel, mean, std, floor=0.1, top_db=15.0, backend="native")

    assert torch.autograd.gradcheck(function, (logits.requires_grad_(), mel), eps=1e-7)


def test_there_are_no_second_derivatives(device: str) -> None:
    logits, mel, mean, std = sample_inputs(device)
    logits.requires_grad_()
    features = ops.mel_mask(logits, mel, mean, std, backend="native").features
    (grad,) = torch.autograd.grad(features.square().sum(), logits, create_graph=True)
    with pytest.raises(NotImplementedError, match="use backend='reference'"):
        grad.sum().backward()


def test_strided_views(device: str) -> None:
    logits, mel, mean, std = sample_inputs(device)
    logits = logits.transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
    views = (logits, mel[:1].expand_as(mel), torch.stack([mean, mean], -1)[:, 1], std)
    copies = tuple(x.detach().contiguous() for x in views)
    copies[0].requires_grad_()
    strided, packed = ops.mel_mask(*views, backend="native"), ops.mel_mask(*copies, backend="native")
    assert torch.equal(strided.features, packed.features) and torch.equal(strided.mel, packed.mel)
    grad = torch.randn_like(packed.mel).transpose(0, 1).contiguous().transpose(0, 1)
    (a,) = torch.autograd.grad(strided.features, views[0], grad)
    (b,) = torch.autograd.grad(packed.features, copies[0], grad)
    assert torch.equal(a, b)


def test_misaligned_view(device: str) -> None:
    logits, mel, mean, std = sample_inputs(device, shape=(1, 2, 4, 8))
    shifted = torch.cat([logits.new_zeros(1), logits.flatten()])[1:].view_as(logits)
    wanted = ops.mel_mask(logits, mel, mean, std, backend="native")
    got = ops.mel_mask(shifted, mel, mean, std, backend="native")
    torch.testing.assert_close(got.features, wanted.features)


def test_silence_is_the_least_amplitude_without_gradient(device: str) -> None:
    logits, mel, mean, std = sample_inputs(device)
    logits.requires_grad_()
    result = ops.mel_mask(logits, torch.zeros_like(mel), mean, std, backend="native")
    wanted = ((-100 - mean) / std)[:, None].expand(2, 3, 16, 37)
    torch.testing.assert_close(result.features, wanted)
    assert (result.mel == 0).all()
    assert (torch.autograd.grad(result.features.sum(), logits)[0] == 0).all()


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_an_infinite_range_holds_nothing_at_the_maximum(device: str, backend: ops.Backend) -> None:
    """What causal features need: no element knows of another."""
    logits, mel, mean, std = sample_inputs(device)
    logits.requires_grad_()
    result = ops.mel_mask(logits, mel, mean, std, top_db=math.inf, backend=backend)
    decibels = 20 * torch.log10(result.mel.clamp(min=1e-5))
    torch.testing.assert_close(result.features, (decibels - mean[:, None]) / std[:, None], rtol=1e-5, atol=1e-5)
    assert float((decibels.amax((2, 3)) - decibels.amin((2, 3))).min().detach()) > 100
    (grad,) = torch.autograd.grad(result.features.sum(), logits)
    assert grad.isfinite().all() and grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits(device: str, dtype: torch.dtype) -> None:
    logits, mel, mean, std = sample_inputs(device, dtype)
    logits = torch.where(logits > 0, 100.0, -100.0).to(dtype).requires_grad_()
    result = ops.mel_mask(logits, mel, mean, std, backend="native")
    wanted = ops.mel_mask_reference(*in_double(logits, mel, mean, std))
    assert error(result.features, wanted.features) < TOLERANCE[dtype]
    (grad,) = torch.autograd.grad(result.features.sum() + result.mel.sum(), logits)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("outputs", [("mel",), ("features",), ("mel", "features")], ids="+".join)
@pytest.mark.parametrize("where", ["logits", "mel"])
def test_nan_spoils_its_source_as_in_the_reference(device: str, where: str, outputs: tuple[str, ...]) -> None:
    logits, mel, mean, std = sample_inputs(device)
    if where == "logits":
        logits[1, 2, 3, 4] = torch.nan
    else:
        mel[1, 3, 4] = torch.nan
    logits.requires_grad_()
    mel.requires_grad_()
    found = []
    for backend in ("native", "reference"):
        result = ops.mel_mask(logits, mel, mean, std, backend=backend)
        total = torch.stack([getattr(result, name).sum() for name in outputs]).sum()
        found.append([x.isnan() for x in (*result, *torch.autograd.grad(total, (logits, mel)))])
    for native, reference in zip(*found, strict=True):
        assert torch.equal(native, reference)
    assert found[0][1][1, 2].all() and not found[0][1][0].any()


def test_mixed_precision_takes_the_wider_dtype(device: str) -> None:
    logits, mel, mean, std = sample_inputs(device)
    logits = logits.bfloat16().requires_grad_()
    result = ops.mel_mask(logits, mel, mean, std, backend="native")
    assert result.features.dtype == torch.float32
    wanted = ops.mel_mask_reference(*in_double(logits, mel, mean, std))
    assert error(result.features, wanted.features) < TOLERANCE[torch.float32]
    assert torch.autograd.grad(result.mel.sum(), logits)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(device: str, dtype: torch.dtype) -> None:
    logits, mel, mean, std = sample_inputs(device, dtype, (2, 3, 4, 5))
    inputs = (logits.clone().requires_grad_(), mel.clone().requires_grad_(), mean.float(), std.float())
    torch.library.opcheck(torch.ops.task_aware.mel_mask.default, (*inputs, 0.02, 1e-5, 80.0))
    maximum = torch.ones((2, 3), device=device)
    grads = (None, torch.ones_like(logits), logits, mel, std.float(), maximum)
    for wants_mel in (True, False):
        arguments = (*grads, 0.02, 1e-5, 80.0, wants_mel)
        torch.library.opcheck(torch.ops.task_aware.mel_mask_backward.default, arguments)


def test_compiles_as_one_graph(device: str) -> None:
    logits, mel, mean, std = sample_inputs(device)
    logits.requires_grad_()
    compiled = torch.compile(ops.mel_mask, fullgraph=True, backend="aot_eager")
    results = [function(logits, mel, mean, std, **OPTIONS) for function in (compiled, ops.mel_mask)]
    grads = [torch.autograd.grad(result.features.square().sum(), logits)[0] for result in results]
    assert torch.equal(results[0].features, results[1].features)
    torch.testing.assert_close(*grads)


@pytest.mark.gpu
def test_cuda_graph_repeats_the_same_bits() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU here")
    inputs = sample_inputs("cuda", shape=(4, 5, 128, 628))
    eager = ops.mel_mask(*inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.mel_mask(*inputs)
    for _ in range(3):
        graph.replay()
        assert torch.equal(captured.features, eager.features)


def test_the_reference_serves_without_kernels() -> None:
    inputs = sample_inputs("cpu")
    result = ops.mel_mask(*inputs, backend="reference", **OPTIONS)
    assert torch.equal(result.features, ops.mel_mask_reference(*inputs, **OPTIONS).features)
    assert ops.mel_mask(*sample_inputs("cpu", shape=(0, 2, 3, 4)), backend="reference").mel.shape == (
        0,
        2,
        3,
        4,
    )


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"logits": torch.zeros(3, 16, 37)}, ValueError, r"logits is \[3,16,37\], expected \[B,S,F,T\]"),
    ({"logits": torch.zeros(2, 3, 0, 37)}, ValueError, r"logits is \[2,3,0,37\]"),
    ({"logits": torch.zeros(2, 3, 16, 37, dtype=torch.float16)}, TypeError, "logits is torch.float16"),
    ({"logits": None}, TypeError, "logits is NoneType, expected a torch.Tensor"),
    ({"mel": torch.zeros(2, 37, 16)}, ValueError, r"mel is \[2,37,16\], expected \[B,F,T\] = \[2,16,37\]"),
    ({"mel": torch.zeros(2, 16, 37, dtype=torch.int64)}, TypeError, "mel is torch.int64, expected float32"),
    ({"mel": torch.zeros(2, 16, 37, device="meta")}, ValueError, "mel is on meta and logits is on cpu"),
    ({"mean": torch.zeros(37)}, ValueError, r"mean is \[37\], expected \[F\] = \[16\]"),
    ({"std": torch.zeros(16, 1)}, ValueError, r"std is \[16,1\], expected \[F\] = \[16\]"),
    ({"floor": 1.0}, ValueError, "floor is 1.0, expected 0 <= floor < 1"),
    ({"amin": 0.0}, ValueError, "amin is 0.0, expected an amplitude above 0"),
    ({"top_db": -1.0}, ValueError, "top_db is -1.0, expected at least 0"),
    ({"backend": "fast"}, ValueError, "backend is 'fast'"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED)
def test_refusals(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    arguments = dict(zip(("logits", "mel", "mean", "std"), sample_inputs("cpu"), strict=True))
    with pytest.raises(kind, match=message):
        ops.mel_mask(**{**arguments, **change})
