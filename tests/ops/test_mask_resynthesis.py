"""mask_resynthesis against its reference in float64, torch.stft and torch.istft, its adjoint, and its refusals."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from task_aware import ops

from .accuracy import check_gradients, error

# (B, S, F, N) and configuration: the detector's front end, the shortest clip, an odd and an even number of frames,
# bins beyond the bands, a single band, more bands than bins, frames that leave samples behind the last unreached,
# and no clip or source.
CASES: list[tuple[tuple[int, int, int, int], dict[str, Any]]] = [
    ((1, 2, 128, 1025), {}),
    ((2, 3, 40, 1500), {"n_fft": 512, "hop": 100}),
    ((2, 2, 20, 1999), {"n_fft": 512, "hop": 450, "f_min": 50.0, "f_max": 7000.0}),
    ((1, 1, 1, 700), {"n_fft": 512, "hop": 90, "sample_rate": 44100, "f_max": 9000.0}),
    ((1, 1, 300, 560), {"n_fft": 512, "hop": 512}),
    ((0, 2, 10, 300), {"n_fft": 512}),
    ((2, 0, 10, 300), {"n_fft": 512}),
]
# For the CPU: frames of 2, 3 and 5 and of another prime (101), the shortest.
OTHER_FRAMES: list[tuple[tuple[int, int, int, int], dict[str, Any]]] = [
    ((2, 2, 20, 1500), {"n_fft": 1200, "hop": 333, "f_min": 50.0, "f_max": 7000.0}),
    ((1, 2, 10, 150), {"n_fft": 202, "hop": 7, "sample_rate": 44100}),
    ((2, 1, 1, 43), {"n_fft": 4, "hop": 3}),
]
# Relative to the loudest: two FFTs, divided by few windows where the hop is long.
TOLERANCE = {torch.float32: 3e-6, torch.float64: 5e-15, torch.bfloat16: 2**-7}
SMALL = {"n_fft": 512, "hop": 120}


def sample_inputs(
    device: str,
    dtype: torch.dtype = torch.float32,
    shape: tuple[int, int, int, int] = (2, 3, 12, 800),
    hop: int = SMALL["hop"],
) -> tuple[Tensor, Tensor]:
    """A waveform and masks for (B, S, F, N)."""
    B, S, F, N = shape
    generator = torch.Generator().manual_seed(sum(shape))
    waveform = torch.randn((B, N), generator=generator)
    masks = torch.rand((B, S, F, N // hop + 1), generator=generator)
    return waveform.to(device, dtype), masks.to(device, dtype)


def check(
    device: str, dtype: torch.dtype, shape: tuple[int, int, int, int], options: dict[str, Any], backend: Any
) -> None:
    leaves = [x.requires_grad_() for x in sample_inputs(device, dtype, shape, options.get("hop", 255))]
    doubles = [x.detach().cpu().double().requires_grad_() for x in leaves]
    sources = ops.mask_resynthesis(*leaves, backend=backend, **options)
    wanted = ops.mask_resynthesis_reference(*doubles, **options)
    assert sources.dtype == dtype and sources.shape == (*shape[:2], shape[3]) and sources.shape == wanted.shape
    assert error(sources, wanted) < TOLERANCE[dtype]
    check_gradients(sources, leaves, wanted, doubles, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("shape", "options"), CASES)
def test_values_and_gradients(
    device: str, dtype: torch.dtype, shape: tuple[int, int, int, int], options: dict[str, Any]
) -> None:
    check(device, dtype, shape, options, "native")


@pytest.mark.parametrize(("shape", "options"), OTHER_FRAMES)
def test_frames_of_any_even_length_on_the_cpu(shape: tuple[int, int, int, int], options: dict[str, Any]) -> None:
    for dtype in TOLERANCE:
        check("cpu", dtype, shape, options, "native")


def test_on_a_gpu_other_frames_are_left_to_the_reference(kernels: str, device: str) -> None:
    if kernels == "cpu":
        pytest.skip("the CPU has them")
    waveform, masks = sample_inputs(device, hop=100)
    with pytest.raises(ValueError, match=r"n_fft is 300, expected 512, 1024, .* backend='reference'"):
        ops.mask_resynthesis(waveform, masks, n_fft=300, hop=100, backend="native")
    options = {"n_fft": 300, "hop": 100}
    assert torch.equal(
        ops.mask_resynthesis(waveform, masks, **options), ops.mask_resynthesis_reference(waveform, masks, **options)
    )


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_as_stft_and_istft(device: str, backend: Any) -> None:
    waveform, masks = sample_inputs(device, shape=(2, 2, 24, 1700), hop=128)
    options = {"n_fft": 512, "f_min": 100.0, "f_max": 6000.0}
    sources = ops.mask_resynthesis(waveform, masks, hop=128, backend=backend, **options)
    window = torch.hamming_window(512, periodic=False, dtype=torch.float64)
    spectrum = torch.stft(waveform.cpu().double(), 512, 128, window=window, return_complex=True)
    bins = ops.band_weights(n_mels=24, **options) @ masks.cpu().double()
    expected = torch.istft((spectrum[:, None] * bins).flatten(0, 1), 512, 128, window=window, length=1700)
    assert error(sources, expected.unflatten(0, (2, 2))) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_the_adjoint(device: str, dtype: torch.dtype) -> None:
    """The operator is linear in either argument: <A x, y> = <x, A' y> for any x and y, to rounding."""
    waveform, masks = (x.requires_grad_() for x in sample_inputs(device, dtype))
    sources = ops.mask_resynthesis(waveform, masks, backend="native", **SMALL)
    grad = torch.randn(sources.shape, generator=torch.Generator().manual_seed(2)).to(sources)
    for leaf, gradient in zip((waveform, masks), torch.autograd.grad(sources, (waveform, masks), grad), strict=True):
        left, right = (sources * grad).sum(), (leaf * gradient).sum()
        scale = sources.norm() * grad.norm()
        assert abs(left - right) < (1e-6 if dtype == torch.float32 else 1e-15) * scale


def test_gradcheck() -> None:
    inputs = [x.requires_grad_() for x in sample_inputs("cpu", torch.float64, (2, 2, 4, 40), hop=5)]
    assert torch.autograd.gradcheck(partial(ops.mask_resynthesis, n_fft=16, hop=5, backend="native"), inputs)


def test_sources_sum_to_the_mixture_as_masks_sum_to_one(device: str) -> None:
    waveform, masks = sample_inputs(device)
    sources = ops.mask_resynthesis(waveform, masks / masks.sum(1, keepdim=True), backend="native", **SMALL)
    assert error(sources.sum(1), waveform.cpu()) < TOLERANCE[torch.float32]


def test_masks_of_zero_are_exact_silence(device: str) -> None:
    waveform, masks = sample_inputs(device)
    masks[0, 1] = 0
    sources = ops.mask_resynthesis(waveform, masks, backend="native", **SMALL)
    assert not sources[0, 1].any() and sources[0, 0].any()


def test_a_source_does_not_depend_on_its_batch(device: str) -> None:
    waveform, masks = sample_inputs(device)
    leaf = masks.clone().requires_grad_()
    together = ops.mask_resynthesis(waveform, leaf, backend="native", **SMALL)
    (grads,) = torch.autograd.grad(together.square().sum(), leaf)
    for b, s in ((0, 0), (1, 2)):
        alone = masks[b : b + 1, s : s + 1].clone().requires_grad_()
        source = ops.mask_resynthesis(waveform[b : b + 1], alone, backend="native", **SMALL)
        (grad,) = torch.autograd.grad(source.square().sum(), alone)
        assert torch.equal(source[0, 0], together[b, s]) and torch.equal(grad[0, 0], grads[b, s])


def test_threads_change_no_bit() -> None:
    """Threads begin within a clip and repeat the frames that reach into their samples."""
    waveform, masks = sample_inputs("cpu", torch.float32, (1, 2, 8, 20000), hop=16)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(ops.mask_resynthesis(waveform, masks, n_fft=64, hop=16, backend="native"))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    wanted = ops.mask_resynthesis_reference(waveform.double(), masks.double(), n_fft=64, hop=16)
    assert error(results[0], wanted) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("where", ["waveform", "masks"])
def test_nan_stays_within_its_frames_and_source(device: str, where: str) -> None:
    waveform, masks = sample_inputs(device, shape=(2, 3, 12, 3000))
    if where == "waveform":
        waveform[1, 1400] = torch.nan
        touched = [(1, s) for s in range(3)]
    else:
        masks[1, 2, 5, 12] = torch.inf
        touched = [(1, 2)]
    native, reference = (
        ops.mask_resynthesis(waveform, masks, backend=name, **SMALL).isfinite().cpu()
        for name in ("native", "reference")
    )
    for b in range(2):
        for s in range(3):
            if (b, s) in touched:
                assert not native[b, s][~reference[b, s]].any()
                spoiled, wanted = (int((~x[b, s]).sum()) for x in (native, reference))
                assert wanted <= spoiled <= wanted + 2 * SMALL["hop"]
            else:
                assert native[b, s].all()


def test_samples_behind_the_last_frame_are_zero(device: str) -> None:
    waveform, masks = sample_inputs(device, shape=(1, 1, 5, 1000), hop=501)
    leaves = [x.requires_grad_() for x in (waveform, masks)]
    sources = ops.mask_resynthesis(*leaves, n_fft=512, hop=501, backend="native")
    assert not sources[..., 501 + 256 :].any() and sources[..., 501 + 255].any()
    for grad in torch.autograd.grad(sources[..., 501 + 256 :].sum(), leaves):
        assert not grad.any()


def test_very_loud_and_very_quiet_clips(device: str) -> None:
    for scale in (1e30, 1e-30):
        waveform, masks = sample_inputs(device)
        sources = ops.mask_resynthesis(scale * waveform, masks, backend="native", **SMALL)
        wanted = ops.mask_resynthesis_reference(scale * waveform.cpu().double(), masks.cpu().double(), **SMALL)
        assert error(sources, wanted) < TOLERANCE[torch.float32]


def test_different_dtypes_become_the_wider_one(device: str) -> None:
    waveform, masks = sample_inputs(device)
    narrow = masks.bfloat16().requires_grad_()
    sources = ops.mask_resynthesis(waveform, narrow, backend="native", **SMALL)
    assert sources.dtype == torch.float32
    assert torch.equal(sources, ops.mask_resynthesis(waveform, narrow.float(), backend="native", **SMALL))
    (grad,) = torch.autograd.grad(sources.sum(), narrow)
    assert grad.dtype == torch.bfloat16


def test_strided_views(device: str) -> None:
    waveform, masks = sample_inputs(device)
    views = waveform[:1].expand(2, 800), masks.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    strided = ops.mask_resynthesis(*views, backend="native", **SMALL)
    assert torch.equal(strided, ops.mask_resynthesis(*(x.contiguous() for x in views), backend="native", **SMALL))


def test_only_the_gradients_asked_for(device: str) -> None:
    for wanted in (0, 1):
        inputs = sample_inputs(device)
        inputs[wanted].requires_grad_()
        ops.mask_resynthesis(*inputs, backend="native", **SMALL).sum().backward()
        assert inputs[wanted].grad is not None and inputs[1 - wanted].grad is None


def test_second_derivatives_are_refused(device: str) -> None:
    inputs = [x.requires_grad_() for x in sample_inputs(device)]
    sources = ops.mask_resynthesis(*inputs, backend="native", **SMALL)
    (grad,) = torch.autograd.grad(sources.square().sum(), inputs[1], create_graph=True)
    with pytest.raises(NotImplementedError, match="mask_resynthesis: the native kernels have no second derivatives"):
        torch.autograd.grad(grad.sum(), inputs[0])


def test_opcheck(device: str) -> None:
    module = importlib.import_module("task_aware.ops.mask_resynthesis")  # ops.mask_resynthesis is the function
    waveform, masks = (x.requires_grad_() for x in sample_inputs(device, shape=(2, 2, 3, 800)))
    for_cuda = module.served_by_cuda(waveform)
    tables = module._tables(16000, 512, 3, 0.0, 8000.0, torch.float32, torch.device(device), for_cuda)
    torch.library.opcheck(torch.ops.task_aware.mask_resynthesis.default, (waveform, masks, *tables, 120))
    grad = torch.randn(2, 2, 800, device=device)
    torch.library.opcheck(
        torch.ops.task_aware.mask_resynthesis_backward.default,
        (grad, waveform.detach(), *tables, 120),
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_compiles_as_one_graph(device: str, backend: Any) -> None:
    inputs = [x.requires_grad_() for x in sample_inputs(device)]
    function = partial(ops.mask_resynthesis, backend=backend, **SMALL)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    results = [call(*inputs) for call in (compiled, function)]
    grads = [torch.autograd.grad(sources.square().sum(), inputs) for sources in results]
    assert torch.equal(*results)
    torch.testing.assert_close(*grads)


@pytest.mark.gpu
def test_cuda_graph_repeats_the_same_bits() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU here")
    waveform, masks = sample_inputs("cuda", torch.float32, (4, 5, 128, 80000), hop=255)
    masks.requires_grad_()

    def step() -> tuple[Tensor, Tensor]:
        sources = ops.mask_resynthesis(waveform, masks)
        return sources, *torch.autograd.grad(sources.square().sum(), masks)

    eager = step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(3):
        graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(captured, eager, strict=True))


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"waveform": torch.zeros(800)}, ValueError, r"waveform is \[800\], expected \[B,N\] with N > 256"),
    ({"waveform": torch.zeros(2, 256)}, ValueError, r"waveform is \[2,256\], expected \[B,N\] with N > 256"),
    ({"waveform": torch.zeros(2, 800, dtype=torch.int16)}, TypeError, "waveform is torch.int16, expected float32"),
    ({"waveform": torch.zeros(2, 800, device="meta")}, ValueError, "masks is on cpu and waveform is on meta"),
    ({"masks": torch.zeros(2, 3, 12, 8)}, ValueError, r"masks is \[2,3,12,8\], expected \[B,S,F,T\] = \[2,S,F,7\]"),
    ({"masks": torch.zeros(1, 3, 12, 7)}, ValueError, r"masks is \[1,3,12,7\]"),
    ({"masks": torch.zeros(2, 3, 0, 7)}, ValueError, "F of at least 1"),
    ({"masks": 1.0}, TypeError, "masks is float, expected a torch.Tensor"),
    ({"n_fft": 511}, ValueError, "n_fft is 511, expected an even number"),
    ({"hop": 513}, ValueError, r"hop is 513, expected 1 to 512 \(n_fft\)"),
    ({"hop": 0}, ValueError, "hop is 0"),
    ({"f_max": 9000.0}, ValueError, r"expected 0 <= f_min < f_max <= 8000.0"),
    ({"f_min": 1.0, "f_max": 2.0}, ValueError, "no bin of 512 samples at 16000 Hz lies between f_min = 1.0"),
    ({"backend": "fast"}, ValueError, "backend is 'fast'"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED)
def test_refusals(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    arguments = dict(zip(("waveform", "masks"), sample_inputs("cpu"), strict=True)) | SMALL
    with pytest.raises(kind, match=message):
        ops.mask_resynthesis(**{**arguments, **change})
