"""mel_spectrogram against its reference in float64, librosa and torchaudio, and what it must refuse."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from task_aware import ops

from .accuracy import error

# Shape and configuration: the detector's, a single clip, several leading dimensions and the shortest clip,
# frames of a power of 2, of 2, 3 and 5, of another prime (101), a hop longer than the frame, empty batches.
CASES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 16000), {}),
    ((5003,), {}),
    ((3, 2, 1025), {}),
    ((2, 1500), {"n_fft": 512, "hop": 100, "n_mels": 40}),
    ((2, 1500), {"n_fft": 1200, "hop": 333, "n_mels": 20, "f_min": 50.0, "f_max": 7000.0}),
    ((1, 150), {"n_fft": 202, "hop": 7, "n_mels": 10, "sample_rate": 44100}),
    ((2, 40), {"n_fft": 4, "hop": 9, "n_mels": 1}),
    ((0, 16000), {}),
    ((3, 0, 2000), {}),
]
# Relative to the largest value: one FFT.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 4e-15, torch.bfloat16: 2**-8}


def sample_inputs(device: str, dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (2, 3000)) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(device, dtype)


def optional(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as problem:  # torchaudio beside a CPU-only torch fails with an OSError
        pytest.skip(f"{name} does not import: {type(problem).__name__}")


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("shape", "options"), CASES)
def test_values(device: str, dtype: torch.dtype, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    waveform = sample_inputs(device, dtype, shape)
    mel = ops.mel_spectrogram(waveform, backend="native", **options)
    wanted = ops.mel_spectrogram_reference(waveform.cpu().double(), **options)
    frames = shape[-1] // options.get("hop", 255) + 1
    assert mel.dtype == dtype and mel.shape == (*shape[:-1], options.get("n_mels", 128), frames)
    assert mel.shape == wanted.shape and error(mel, wanted) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("shape", "options"), CASES)
def test_gradients(device: str, dtype: torch.dtype, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    waveform = sample_inputs(device, dtype, shape).requires_grad_()
    double = waveform.detach().cpu().double().requires_grad_()
    mel = ops.mel_spectrogram(waveform, backend="native", **options)
    wanted = ops.mel_spectrogram_reference(double, **options)
    grad = torch.randn(mel.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    (got,) = torch.autograd.grad(mel, waveform, grad.to(device))
    (want,) = torch.autograd.grad(wanted, double, grad.double())
    # A bin near 0 has a direction that rounding turns: float32 keeps fewer digits here than in the values.
    assert got.shape == shape and error(got, want) < (1e-4 if dtype == torch.float32 else 1e-12)


def test_gradcheck(device: str) -> None:
    waveform = sample_inputs(device, torch.float64, (2, 40)).requires_grad_()

    def function(waveform: Tensor) -> Tensor:
        return ops.mel_spectrogram(waveform, n_fft=16, hop=5, n_mels=4, backend="native")

    assert torch.autograd.gradcheck(function, waveform)


def test_ten_seconds_are_628_frames(device: str) -> None:
    assert ops.mel_spectrogram(torch.zeros(160000, device=device)).shape == (128, 628)


def test_as_librosa_to_a_ten_thousandth_of_a_decibel(device: str) -> None:
    librosa = optional("librosa")
    waveform = 0.1 * sample_inputs(device, torch.float32, (16000,))
    spectrum = librosa.stft(
        waveform.cpu().double().numpy(),
        n_fft=2048,
        hop_length=255,
        window=np.hamming(2048),
        center=True,
        pad_mode="reflect",
    )
    bank = librosa.filters.mel(
        sr=16000, n_fft=2048, n_mels=128, fmin=0, fmax=8000, htk=False, norm=None, dtype=np.float64
    )
    mel = ops.mel_spectrogram(waveform, backend="native").cpu().double().numpy()
    np.testing.assert_allclose(20 * np.log10(mel), 20 * np.log10(bank @ np.abs(spectrum)), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "n_mels", "f_min", "f_max"),
    [(16000, 2048, 128, 0.0, 8000.0), (44100, 1024, 64, 50.0, 16000.0), (8000, 256, 10, 0.0, 900.0)],
)
def test_filterbank(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> None:
    librosa = optional("librosa")
    bank = ops.mel_filterbank(sample_rate, n_fft, n_mels, f_min, f_max)
    wanted = librosa.filters.mel(
        sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max, norm=None, dtype=np.float64
    )
    np.testing.assert_allclose(bank.numpy(), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "options", [(16000, 2048, 128, 0.0, 8000.0), (44100, 1024, 64, 50.0, 16000.0), (8000, 8, 10, 0.0, 4000.0)]
)
def test_packed_filters_are_the_filterbank(options: tuple[Any, ...]) -> None:
    module = importlib.import_module("task_aware.ops.mel_spectrogram")  # ops.mel_spectrogram is the function
    tables = module._tables(*options, torch.float32, torch.device("cpu"), False)
    assert torch.equal(module._unpack(tables.weights, tables.bands, options[1] // 2 + 1), ops.mel_filterbank(*options))


def test_as_torchaudio() -> None:
    torchaudio = optional("torchaudio")
    bank = torchaudio.functional.melscale_fbanks(1025, 0.0, 8000.0, 128, 16000, norm=None, mel_scale="slaney")
    np.testing.assert_allclose(ops.mel_filterbank().T.numpy(), bank.numpy(), rtol=0, atol=1e-4)
    transform = torchaudio.transforms.MelSpectrogram(
        n_fft=2048,
        hop_length=255,
        n_mels=128,
        power=1.0,
        mel_scale="slaney",
        window_fn=torch.hamming_window,
        wkwargs={"periodic": False},
    )
    waveform = sample_inputs("cpu", torch.float32, (2, 8000))
    # Its float32 filters are good to about 1e-5.
    torch.testing.assert_close(ops.mel_spectrogram(waveform), transform(waveform), rtol=1e-4, atol=1e-3)


def test_silence_is_zero_and_has_no_gradient(device: str) -> None:
    waveform = torch.zeros(2, 3000, device=device, requires_grad=True)
    mel = ops.mel_spectrogram(waveform, backend="native")
    (grad,) = torch.autograd.grad(mel.sum(), waveform)
    assert (mel == 0).all() and (grad == 0).all()


def test_silent_frames_beside_loud_ones_stay_exactly_zero(device: str) -> None:
    waveform = torch.zeros(1, 20000, device=device)
    waveform[:, 10000] = 32768.0  # a single click
    mel = ops.mel_spectrogram(waveform, backend="native")[0]
    centres = 255 * torch.arange(mel.shape[-1], device=device)
    silent = (centres - 10000).abs() > 1024
    assert (mel[:, silent] == 0).all() and (mel[:, ~silent] > 0).all()
    wanted = ops.mel_spectrogram_reference(waveform.cpu().double())
    assert error(mel[None], wanted) < 1e-6


def test_a_clip_does_not_depend_on_its_batch(device: str) -> None:
    waveform = sample_inputs(device, torch.float32, (5, 4000))
    together = ops.mel_spectrogram(waveform, backend="native")
    for clip, mel in zip(waveform, together, strict=True):
        assert torch.equal(ops.mel_spectrogram(clip, backend="native"), mel)


def test_clipped_and_tiny_samples(device: str) -> None:
    for scale in (32768.0, 1e-12):
        waveform = scale * sample_inputs(device).sign()
        wanted = ops.mel_spectrogram_reference(waveform.cpu().double())
        assert error(ops.mel_spectrogram(waveform, backend="native"), wanted) < 1e-6


def test_nan_spoils_the_frames_that_hold_it(device: str) -> None:
    waveform = sample_inputs(device, torch.float32, (1, 20000))
    waveform[0, 10000] = torch.nan
    native, reference = (ops.mel_spectrogram(waveform, backend=name).isnan() for name in ("native", "reference"))
    assert torch.equal(native, reference) and native.any() and not native.all()


def test_strided_views(device: str) -> None:
    waveform = sample_inputs(device, torch.float32, (3000, 2, 3))
    view = waveform.permute(2, 1, 0)
    assert torch.equal(
        ops.mel_spectrogram(view, backend="native"), ops.mel_spectrogram(view.contiguous(), backend="native")
    )
    expanded = view[:1].expand(4, 2, 3000)
    mel = ops.mel_spectrogram(expanded, backend="native")
    assert mel.shape == (4, 2, 128, 12) and torch.equal(mel[0], mel[3])


def test_a_first_call_in_inference_mode_spoils_no_later_gradient(device: str) -> None:
    waveform = sample_inputs(device)
    options = {"n_fft": 128, "hop": 50, "n_mels": 11}  # of this test alone, so that nothing is cached
    with torch.inference_mode():
        wanted = ops.mel_spectrogram(waveform, backend="native", **options)
    mel = ops.mel_spectrogram(waveform.requires_grad_(), backend="native", **options)
    mel.sum().backward()
    assert torch.equal(mel, wanted) and waveform.grad is not None


def test_opcheck(device: str) -> None:
    module = importlib.import_module("task_aware.ops.mel_spectrogram")  # ops.mel_spectrogram is the function
    waveform = sample_inputs(device, torch.float32, (2, 200)).requires_grad_()
    for n_fft in (64, 256):
        for_cuda = module.served_by_cuda(waveform)
        tables = module._tables(16000, n_fft, 8, 0.0, 8000.0, torch.float32, torch.device(device), for_cuda)
        torch.library.opcheck(torch.ops.task_aware.mel_spectrogram.default, (waveform, *tables, 17))


def test_compiles_as_one_graph(device: str) -> None:
    waveform = sample_inputs(device).requires_grad_()
    options = {
        "n_fft": 256,
        "hop": 50,
        "n_mels": 13,
    }  # of this test alone: the tables are made while compiling
    compiled = torch.compile(ops.mel_spectrogram, fullgraph=True, backend="aot_eager")
    results = [function(waveform, **options) for function in (compiled, ops.mel_spectrogram)]
    grads = [torch.autograd.grad(mel.square().sum(), waveform)[0] for mel in results]
    assert torch.equal(*results)
    torch.testing.assert_close(*grads)


def test_filters_between_two_bins_have_no_gradient(device: str) -> None:
    waveform = sample_inputs(device).requires_grad_()
    mel = ops.mel_spectrogram(waveform, n_fft=4, hop=2, n_mels=1, f_min=100.0, f_max=3000.0, backend="native")
    (grad,) = torch.autograd.grad(mel.sum(), waveform)
    assert not mel.any() and not grad.any()


def test_tables_do_not_depend_on_the_default_device() -> None:
    roots = importlib.import_module("task_aware.ops._tables").fft_roots
    waveform = sample_inputs("cpu")
    with torch.device("meta"):
        assert ops.mel_spectrogram(waveform, n_mels=25).device.type == "cpu"
        assert roots((256,), torch.float64, torch.device("cpu")).device.type == "cpu"


def test_shapes_without_data_leave_no_tables_behind() -> None:
    with FakeTensorMode():
        assert ops.mel_spectrogram(torch.zeros(2, 3000), n_mels=23).shape == (2, 23, 12)
    assert type(ops.mel_spectrogram(torch.zeros(2, 3000), n_mels=23)) is Tensor


@pytest.mark.parametrize("strict", [False, True])
def test_an_export_leaves_no_tables_without_data_behind(strict: bool) -> None:
    class FrontEnd(torch.nn.Module):
        def forward(self, waveform: Tensor) -> Tensor:
            return ops.mel_spectrogram(waveform, n_mels=21 + strict)  # of this test alone: the tables are made tracing

    waveform = sample_inputs("cpu")
    exported = torch.export.export(FrontEnd(), (waveform,), strict=strict).module()
    wanted = ops.mel_spectrogram_reference(waveform.double(), n_mels=21 + strict)
    for mel in (ops.mel_spectrogram(waveform, n_mels=21 + strict), exported(waveform)):
        assert type(mel) is Tensor and error(mel, wanted) < TOLERANCE[torch.float32]


@pytest.mark.gpu
def test_cuda_graph_repeats_the_same_bits() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU here")
    waveform = sample_inputs("cuda", torch.float32, (12, 160000))
    eager = ops.mel_spectrogram(waveform)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.mel_spectrogram(waveform)
    for _ in range(3):
        graph.replay()
        assert torch.equal(captured, eager)


REFUSED: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (torch.zeros(2, 1024), {}, ValueError, r"waveform is \[2,1024\], expected \[...,N\] with N > 1024"),
    (torch.zeros(()), {}, ValueError, r"waveform is \[\], expected"),
    (torch.zeros(3000, dtype=torch.int16), {}, TypeError, "waveform is torch.int16, expected float32"),
    (torch.zeros(3000, dtype=torch.complex64), {}, TypeError, "waveform is torch.complex64"),
    (np.zeros(3000), {}, TypeError, "waveform is ndarray, expected a torch.Tensor"),
    (torch.zeros(3000), {"n_fft": 1023}, ValueError, "n_fft is 1023, expected an even number"),
    (torch.zeros(3000), {"hop": 0}, ValueError, "hop is 0"),
    (torch.zeros(3000), {"n_mels": 0}, ValueError, "n_mels is 0"),
    (
        torch.zeros(3000),
        {"f_max": 9000.0},
        ValueError,
        r"f_max is 9000.0, expected 0 <= f_min < f_max <= 8000.0",
    ),
    (torch.zeros(3000), {"f_min": 8000.0}, ValueError, "f_min is 8000.0"),
    (torch.zeros(3000), {"backend": "fast"}, ValueError, "backend is 'fast'"),
]


@pytest.mark.parametrize(("waveform", "options", "kind", "message"), REFUSED)
def test_refusals(waveform: Any, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        ops.mel_spectrogram(waveform, **options)


def test_tables_stay_where_a_recorded_graph_reads_them() -> None:
    from task_aware.ops.mel_spectrogram import _tables

    def tables(n_mels: int) -> object:
        return _tables(16000, 64, n_mels, 0.0, 8000.0, torch.float32, torch.device("cpu"), False)

    first = tables(1)
    for n_mels in range(2, 40):
        tables(n_mels)
    assert tables(1) is first
