"""The detector's front end: the linear-amplitude mel-spectrogram of a waveform."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _check
from ._dispatch import (
    Backend,
    constant_in_graphs,
    has_kernels,
    outside_autocast,
    register_autograd,
    served_by_cuda,
    use_native,
)
from ._tables import fft_roots, kept

_HERTZ_PER_MEL = 200.0 / 3
_LOG_START_HERTZ = 1000.0
_LOG_START_MEL = _LOG_START_HERTZ / _HERTZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0

# On CUDA, shorter frames are transformed by the definition of the Fourier transform.
_SHORTEST_CUDA_FFT = 256


def _hertz_to_mel(frequency: float) -> float:
    if frequency < _LOG_START_HERTZ:
        return frequency / _HERTZ_PER_MEL
    return _LOG_START_MEL + math.log(frequency / _LOG_START_HERTZ) / _LOG_STEP


def _mel_to_hertz(mel: float) -> float:
    if mel < _LOG_START_MEL:
        return mel * _HERTZ_PER_MEL
    return _LOG_START_HERTZ * math.exp(_LOG_STEP * (mel - _LOG_START_MEL))


def mel_filterbank(
    sample_rate: int = 16000,
    n_fft: int = 2048,
    n_mels: int = 128,
    f_min: float = 0.0,
    f_max: float = 8000.0,
    *,
    device: torch.device | str | None = None,
) -> Tensor:
    """Makes triangular mel filters ``[n_mels, n_fft // 2 + 1]`` of peak height 1, in float64.

    They follow Slaney's mel scale (linear below 1 kHz, logarithmic above) without area normalisation, as
    ``librosa.filters.mel(htk=False, norm=None)``.

    Args:
        sample_rate: sample rate, hertz.
        n_fft: length of the Fourier transform, samples.
        n_mels: number of bands.
        f_min: lower edge of the first band, hertz.
        f_max: upper edge of the last band, hertz.
        device: device of the filters.
    """
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device=device) * (sample_rate / n_fft)
    low, high = _hertz_to_mel(f_min), _hertz_to_mel(f_max)
    mels = low + (high - low) / (n_mels + 1) * torch.arange(n_mels + 2, dtype=torch.float64, device=device)
    edges = torch.where(
        mels < _LOG_START_MEL,
        mels * _HERTZ_PER_MEL,
        _LOG_START_HERTZ * torch.exp(_LOG_STEP * (mels - _LOG_START_MEL)),
    )
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)


def _bins_of_filters(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> list[range]:
    """The bins between the edges of each filter of :func:`mel_filterbank`."""
    low, high = _hertz_to_mel(f_min), _hertz_to_mel(f_max)
    mels = (low + (high - low) / (n_mels + 1) * k for k in range(n_mels + 2))
    edges = [_mel_to_hertz(mel) * n_fft / sample_rate for mel in mels]
    return [
        range(math.floor(first) + 1, min(math.ceil(last), n_fft // 2 + 1))
        for first, last in zip(edges[:-2], edges[2:], strict=True)
    ]


def hamming_window(length: int, *, device: torch.device | str | None = None) -> Tensor:
    """Makes the symmetric Hamming window ``0.54 - 0.46 cos(2 pi n / (length - 1))`` in float64."""
    return torch.hamming_window(length, periodic=False, dtype=torch.float64, device=device)


class _Tables(NamedTuple):
    """Lookup tables of the kernels, named as in csrc/cuda/mel_spectrogram.cuh."""

    window: Tensor
    twiddles: Tensor
    roots: Tensor | None
    weights: Tensor
    bands: Tensor


@kept
def _cached_tables(
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    f_min: float,
    f_max: float,
    compute: torch.dtype,
    device: torch.device,
    for_cuda: bool,
) -> _Tables:
    dtype = compute if for_cuda else torch.float64
    # Counted in Python, as nothing may depend on the values of tensors while tracing. Made on the host, whatever the
    # default device: copies from there are complete when they return, so that every stream may read them.
    filters = _bins_of_filters(sample_rate, n_fft, n_mels, f_min, f_max)
    packed = torch.tensor(
        [f * (n_fft // 2 + 1) + k for f, bins in enumerate(filters) for k in bins], dtype=torch.int64, device="cpu"
    )
    weights = mel_filterbank(sample_rate, n_fft, n_mels, f_min, f_max, device="cpu").flatten()[packed]
    begins = itertools.accumulate((len(bins) for bins in filters), initial=0)
    bands = [(bins.start, bins.start + len(bins), at) for bins, at in zip(filters, begins, strict=False)]
    angles = -2 * math.pi / n_fft * torch.arange(n_fft, dtype=torch.float64, device="cpu")
    twiddles = torch.stack([angles.cos(), angles.sin()], dim=-1)
    fast = for_cuda and n_fft >= _SHORTEST_CUDA_FFT and n_fft & (n_fft - 1) == 0
    return _Tables(
        hamming_window(n_fft, device="cpu").to(device, dtype),
        twiddles.to(device, dtype),
        fft_roots((n_fft // 2,), dtype, device) if fast else None,
        weights.to(device, dtype),
        torch.tensor(bands, dtype=torch.int32, device="cpu").to(device),
    )


@constant_in_graphs
def _tables(*configuration: Any) -> _Tables:
    return _cached_tables(*configuration)


@outside_autocast
def mel_spectrogram_reference(
    waveform: Tensor,
    *,
    sample_rate: int = 16000,
    n_fft: int = 2048,
    hop: int = 255,
    n_mels: int = 128,
    f_min: float = 0.0,
    f_max: float = 8000.0,
) -> Tensor:
    """Pure PyTorch definition of :func:`mel_spectrogram`."""
    if waveform.numel() == 0:
        frames = waveform.shape[-1] // hop + 1
        return waveform[..., None, :1].expand(*waveform.shape[:-1], n_mels, frames).clone()
    compute = torch.promote_types(waveform.dtype, torch.float32)
    flat = waveform.to(compute).reshape(math.prod(waveform.shape[:-1]), waveform.shape[-1])
    padded = torch.nn.functional.pad(flat[:, None], (n_fft // 2, n_fft // 2), mode="reflect")[:, 0]
    window = hamming_window(n_fft, device=waveform.device).to(compute)
    bank = mel_filterbank(sample_rate, n_fft, n_mels, f_min, f_max, device=waveform.device).to(compute)
    spectrum = torch.fft.rfft(padded.unfold(-1, n_fft, hop) * window)
    mel = (spectrum.abs() @ bank.T).transpose(-1, -2)
    return mel.reshape(*waveform.shape[:-1], *mel.shape[-2:]).to(waveform.dtype)


def mel_spectrogram(
    waveform: Tensor,
    *,
    sample_rate: int = 16000,
    n_fft: int = 2048,
    hop: int = 255,
    n_mels: int = 128,
    f_min: float = 0.0,
    f_max: float = 8000.0,
    backend: Backend = "auto",
) -> Tensor:
    """Computes the linear-amplitude mel-spectrogram, the front end of the DCASE 2020 baseline detector.

    Frames of ``n_fft`` samples are centred on every ``hop``-th sample, reflected at the clip's ends and multiplied by a
    symmetric Hamming window. The magnitudes of their Fourier transform are summed by :func:`mel_filterbank`. The result
    is differentiable in the waveform; the gradient of a magnitude of 0 is 0.

    On the CPU the transform is computed in float64 whatever the dtype, so that bands 80 dB below the loudest are
    within 1e-4 dB. On CUDA it is computed in the dtype (bfloat16: in float32), whose rounding is visible in such bands.

    The window and the filters are made once for each configuration, dtype and device and copied to the device: call
    this once before capturing a CUDA graph.

    Args:
        waveform: ``[...,N]`` samples, N > n_fft / 2; float32, float64 or bfloat16 (computed in float32).
        sample_rate: sample rate, hertz.
        n_fft: frame length in samples, even. Fast lengths are products of 2, 3 and 5 on the CPU and powers of 2 from
            256 on on CUDA; others are correct but slow. CUDA keeps a frame in shared memory, which limits it to 16384
            samples (float64: 8192).
        hop: distance between frames in samples.
        n_mels: number of mel bands F.
        f_min: lower edge of the first band, hertz.
        f_max: upper edge of the last band, hertz, at most half the sample rate.
        backend: ``auto``, ``native`` or ``reference``.

    Returns:
        ``[...,F,T]`` in the waveform's dtype, ``T = N // hop + 1``.

    Raises:
        TypeError, ValueError: the waveform has the wrong type or is too short, or the configuration is impossible.
    """
    _check.floating("mel_spectrogram", waveform=waveform)
    if n_fft < 2 or n_fft % 2:
        raise ValueError(f"mel_spectrogram: n_fft is {n_fft}, expected an even number of samples.")
    if hop < 1 or n_mels < 1:
        raise ValueError(f"mel_spectrogram: hop is {hop} and n_mels is {n_mels}, expected both to be at least 1.")
    if not 0 <= f_min < f_max <= sample_rate / 2:
        raise ValueError(
            f"mel_spectrogram: f_min is {f_min} and f_max is {f_max}, expected "
            f"0 <= f_min < f_max <= {sample_rate / 2}, half the sample rate."
        )
    if waveform.dim() < 1 or waveform.shape[-1] <= n_fft // 2:
        raise ValueError(
            f"mel_spectrogram: waveform is {_check.shape(waveform)}, expected [...,N] with N > {n_fft // 2} "
            f"samples (half of n_fft), as the ends are reflected; pad it."
        )
    if not use_native("mel_spectrogram", backend, waveform):
        return mel_spectrogram_reference(
            waveform, sample_rate=sample_rate, n_fft=n_fft, hop=hop, n_mels=n_mels, f_min=f_min, f_max=f_max
        )
    compute = torch.promote_types(waveform.dtype, torch.float32)
    tables = _tables(sample_rate, n_fft, n_mels, f_min, f_max, compute, waveform.device, served_by_cuda(waveform))
    flat = waveform.to(compute).reshape(math.prod(waveform.shape[:-1]), waveform.shape[-1])
    # By their names, as torch 2.11 cannot unpack a named tuple that is a constant of a compiled graph.
    mel = torch.ops.task_aware.mel_spectrogram(
        flat, tables.window, tables.twiddles, tables.roots, tables.weights, tables.bands, hop
    )
    return mel.reshape(*waveform.shape[:-1], *mel.shape[-2:]).to(waveform.dtype)


def _fake(
    waveform: Tensor,
    window: Tensor,
    twiddles: Tensor,
    roots: Tensor | None,
    weights: Tensor,
    bands: Tensor,
    hop: int,
) -> Tensor:
    return waveform.new_empty((waveform.shape[0], bands.shape[0], waveform.shape[1] // hop + 1))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    waveform, window, _, _, weights, bands, ctx.hop = inputs
    ctx.save_for_backward(waveform, window, weights, bands)


def _unpack(weights: Tensor, bands: Tensor, n_bins: int) -> Tensor:
    """Builds the filterbank ``[F, n_bins]`` from the tables."""
    first, end, at = (column[:, None] for column in bands.unbind(-1))
    bins = torch.arange(n_bins, device=bands.device)
    inside = (bins >= first) & (bins < end)
    padded = torch.nn.functional.pad(weights, (0, 1))  # a bank may hold no bin at all
    return padded[(at + bins - first).where(inside, 0)].where(inside, 0)


def unreflect(padded: Tensor, half: int) -> Tensor:
    """The adjoint of padding ``[C,N]`` by ``half`` reflected samples on either side."""
    N = padded.shape[-1] - 2 * half
    inner = padded[:, half : half + N].clone()
    inner[:, 1 : half + 1] += padded[:, :half].flip(-1)
    inner[:, N - 1 - half : N - 1] += padded[:, half + N :].flip(-1)
    return inner


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Goes back through filters, magnitude, Fourier transform, overlapping frames and reflection."""
    waveform, window, weights, bands = ctx.saved_tensors
    window = window.to(waveform.dtype)
    bank = _unpack(weights.to(waveform.dtype), bands, window.shape[0] // 2 + 1)
    if waveform.numel() == 0:
        return (torch.zeros_like(waveform), None, None, None, None, None, None)
    n_fft, half, N = window.shape[0], window.shape[0] // 2, waveform.shape[-1]
    padded = torch.nn.functional.pad(waveform[:, None], (half, half), mode="reflect")[:, 0]
    spectrum = torch.fft.rfft(padded.unfold(-1, n_fft, ctx.hop) * window)
    grad_spectrum = (grad.transpose(-1, -2) @ bank) * spectrum.sgn()
    # The adjoint of rfft by irfft, which mirrors the inner bins and divides by the length.
    grad_spectrum[..., 1:-1] *= 0.5
    frames = torch.fft.irfft(grad_spectrum, n_fft) * (n_fft * window)
    covered = ctx.hop * (frames.shape[1] - 1) + n_fft
    folded = torch.nn.functional.fold(
        frames.transpose(-1, -2), (1, covered), kernel_size=(1, n_fft), stride=(1, ctx.hop)
    )[:, 0, 0]
    grad_waveform = unreflect(torch.nn.functional.pad(folded, (0, N + 2 * half - covered)), half)
    return (grad_waveform, None, None, None, None, None, None)


if has_kernels():
    torch.library.register_fake("task_aware::mel_spectrogram", _fake)
    register_autograd("mel_spectrogram", _backward, setup_context=_setup_context)
