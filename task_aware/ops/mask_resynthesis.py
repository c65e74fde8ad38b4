"""Waveforms of sources from masks on a mixture's mel-spectrogram."""

from __future__ import annotations

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
    refuse_second_derivatives,
    register_autograd,
    served_by_cuda,
    use_native,
)
from ._tables import fft_roots, kept
from .mel_spectrogram import hamming_window, mel_filterbank, unreflect

# The transforms that csrc/cuda/mask_resynthesis.cuh has.
_CUDA_TRANSFORMS = {
    torch.float32: (512, 1024, 2048, 4096),
    torch.float64: (512, 1024, 2048),
}


def band_weights(
    sample_rate: int = 16000,
    n_fft: int = 2048,
    n_mels: int = 128,
    f_min: float = 0.0,
    f_max: float = 8000.0,
    *,
    device: torch.device | str | None = None,
) -> Tensor:
    """Makes the weights ``[n_fft // 2 + 1, n_mels]`` of the mel bands for each bin, in float64.

    They are the transpose of :func:`mel_filterbank` with rows that sum to 1: between the centres of two bands they
    interpolate linearly. A bin that no filter covers takes the weights of the nearest bin that one does.
    """
    bank = mel_filterbank(sample_rate, n_fft, n_mels, f_min, f_max, device=device).T
    # The filters overlap, so that only bins at the ends are without one.
    covered = (bank.sum(1) > 0).long()
    first, last = covered.argmax(), len(bank) - 1 - covered.flip(0).argmax()
    bank = bank[torch.arange(len(bank), device=device).clamp(first, last)]
    return bank / bank.sum(1, keepdim=True)


class _Tables(NamedTuple):
    """Lookup tables of the kernels."""

    window: Tensor
    """``[n_fft]``"""
    weights: Tensor
    """``[2, n_fft // 2 + 1]``: a bin's weights of the two bands between which it lies."""
    bands: Tensor
    """``[n_fft // 2 + 1]``, int32: the first of the two."""
    cells: Tensor
    """``[F + 1]``, int32: bins ``cells[f]`` to ``cells[f + 1] - 1`` lie between the bands f and f + 1."""
    roots: Tensor | None
    """Those of the transform of ``n_fft`` values on CUDA; None on the CPU and where CUDA has none."""


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
    # Made on the host, whatever the default device, and without a look at values, which tracing has not.
    weights = torch.nn.functional.pad(band_weights(sample_rate, n_fft, n_mels, f_min, f_max, device="cpu"), (0, 1))
    lower = (weights > 0).long().argmax(1)  # the first of the bands, whose numbers grow with the bins
    both = weights.gather(1, torch.stack([lower, lower + 1], 1)).T
    cells = (lower < torch.arange(n_mels + 1, device="cpu")[:, None]).sum(1, dtype=torch.int32)
    fast = for_cuda and n_fft in _CUDA_TRANSFORMS[compute]
    return _Tables(
        hamming_window(n_fft, device="cpu").to(device, compute),
        both.contiguous().to(device, compute),
        lower.int().to(device),
        cells.to(device),
        fft_roots((n_fft,), compute, device) if fast else None,
    )


@constant_in_graphs
def _tables(*configuration: Any) -> _Tables:
    return _cached_tables(*configuration)


def _overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Adds up frames ``[C,T,n_fft]``, each ``hop`` samples after the one before: ``[C,(T - 1) hop + n_fft]``."""
    T, n_fft = frames.shape[-2:]
    size = (1, (T - 1) * hop + n_fft)
    return torch.nn.functional.fold(frames.transpose(-1, -2), size, kernel_size=(1, n_fft), stride=(1, hop))[:, 0, 0]


@outside_autocast
def mask_resynthesis_reference(
    waveform: Tensor,
    masks: Tensor,
    *,
    sample_rate: int = 16000,
    n_fft: int = 2048,
    hop: int = 255,
    f_min: float = 0.0,
    f_max: float = 8000.0,
) -> Tensor:
    """Pure PyTorch definition of :func:`mask_resynthesis`: what ``torch.stft`` and ``torch.istft`` do, spelled out."""
    B, S, F, T = masks.shape
    N, half = waveform.shape[-1], n_fft // 2
    result = torch.promote_types(waveform.dtype, masks.dtype)
    if masks.numel() == 0:
        return (waveform[:, None] * masks.sum((-2, -1))[..., None]).to(result)
    compute = torch.promote_types(result, torch.float32)
    window = hamming_window(n_fft, device=waveform.device).to(compute)
    weights = band_weights(sample_rate, n_fft, F, f_min, f_max, device=waveform.device).to(compute)
    padded = torch.nn.functional.pad(waveform.to(compute)[:, None], (half, half), mode="reflect")
    spectrum = torch.fft.rfft(padded.unfold(-1, n_fft, hop) * window)  # [B,1,T,bins]
    masked = spectrum * (masks.to(compute).transpose(-1, -2) @ weights.T)
    sources = _overlap_add((torch.fft.irfft(masked, n_fft) * window).flatten(0, 1), hop)
    envelope = _overlap_add(window.square().expand(1, T, n_fft), hop)
    sources = (sources / envelope)[:, half : half + N]
    return torch.nn.functional.pad(sources, (0, N - sources.shape[-1])).unflatten(0, (B, S)).to(result)


def mask_resynthesis(
    waveform: Tensor,
    masks: Tensor,
    *,
    sample_rate: int = 16000,
    n_fft: int = 2048,
    hop: int = 255,
    f_min: float = 0.0,
    f_max: float = 8000.0,
    backend: Backend = "auto",
) -> Tensor:
    """Makes the waveforms of sources from masks on the mel-spectrogram of their mixture::

        sources[b,s] = istft(bins[b,s] * stft(waveform[b]))
        bins[b,s,k,t] = sum over f of band_weights[k,f] * masks[b,s,f,t]

    The frames are those of :func:`mel_spectrogram` with the same options. Frames, window and bands follow from these
    options, as the masks do, so that the window and :func:`band_weights` need not be passed. The inverse divides the
    overlapping frames by the sum of their squared windows: masks of 1 give the mixture back, and masks that sum to 1
    give sources that sum to it. Samples that no frame reaches (after the last frame, if the hop is longer than half of
    ``n_fft``) are 0. A NaN or infinity spoils the frames that hold it, and may spoil a neighbouring one, but no other
    source or clip.

    Both arguments get gradients. That of the masks comes from a kernel, which like the forward keeps no spectra of
    sources; that of the waveform from PyTorch, with the spectra of all sources in memory.

    The tables are made once for each configuration, dtype and device and copied to the device: call this once before
    capturing a CUDA graph.

    Args:
        waveform: mixtures ``[B,N]``, N > n_fft / 2; float32, float64 or bfloat16.
        masks: ``[B,S,F,T]``, T = N // hop + 1, any values. If the dtypes differ, both are converted to the wider one;
            bfloat16 is computed in float32.
        sample_rate: sample rate, hertz.
        n_fft: frame length in samples, even. On CUDA the kernels have 512, 1024, 2048 and 4096 (float64: up to 2048),
            and ``auto`` leaves others to the reference; on the CPU, products of 2, 3 and 5 are fast.
        hop: distance between frames in samples, at most ``n_fft``.
        f_min: lower edge of the first band, hertz.
        f_max: upper edge of the last band, hertz, at most half the sample rate.
        backend: ``auto``, ``native`` or ``reference``.

    Returns:
        Sources ``[B,S,N]`` in the wider dtype of the two.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape or device, or the configuration is impossible.
    """
    _check.floating("mask_resynthesis", waveform=waveform, masks=masks)
    if n_fft < 2 or n_fft % 2:
        raise ValueError(f"mask_resynthesis: n_fft is {n_fft}, expected an even number of samples.")
    if not 1 <= hop <= n_fft:
        raise ValueError(f"mask_resynthesis: hop is {hop}, expected 1 to {n_fft} (n_fft), so that frames leave no gap.")
    if not 0 <= f_min < f_max <= sample_rate / 2:
        raise ValueError(
            f"mask_resynthesis: f_min is {f_min} and f_max is {f_max}, expected "
            f"0 <= f_min < f_max <= {sample_rate / 2}, half the sample rate."
        )
    if waveform.dim() != 2 or waveform.shape[1] <= n_fft // 2:
        raise ValueError(
            f"mask_resynthesis: waveform is {_check.shape(waveform)}, expected [B,N] with N > {n_fft // 2} "
            f"samples (half of n_fft), as the ends are reflected; pad it."
        )
    B, T = waveform.shape[0], waveform.shape[1] // hop + 1
    if masks.dim() != 4 or masks.shape[0] != B or masks.shape[2] == 0 or masks.shape[3] != T:
        raise ValueError(
            f"mask_resynthesis: masks is {_check.shape(masks)}, expected [B,S,F,T] = [{B},S,F,{T}] with F of at "
            f"least 1: a mask for each of the N // hop + 1 frames."
        )
    _check.same_device("mask_resynthesis", waveform=waveform, masks=masks)
    if math.floor(f_min * n_fft / sample_rate) + 1 >= f_max * n_fft / sample_rate:
        raise ValueError(
            f"mask_resynthesis: no bin of {n_fft} samples at {sample_rate} Hz lies between f_min = {f_min} and "
            f"f_max = {f_max} Hz; use a longer n_fft or a wider range."
        )
    result = torch.promote_types(waveform.dtype, masks.dtype)
    compute = torch.promote_types(result, torch.float32)
    for_cuda = served_by_cuda(waveform)
    has_transform = not for_cuda or n_fft in _CUDA_TRANSFORMS[compute]
    if not use_native("mask_resynthesis", backend, waveform) or (backend == "auto" and not has_transform):
        return mask_resynthesis_reference(
            waveform, masks, sample_rate=sample_rate, n_fft=n_fft, hop=hop, f_min=f_min, f_max=f_max
        )
    if not has_transform:
        raise ValueError(
            f"mask_resynthesis: n_fft is {n_fft}, expected {', '.join(map(str, _CUDA_TRANSFORMS[compute]))} for "
            f"{compute} on CUDA; use backend='reference'."
        )
    tables = _tables(sample_rate, n_fft, masks.shape[2], f_min, f_max, compute, waveform.device, for_cuda)
    # By their names, as torch 2.11 cannot unpack a named tuple that is a constant of a compiled graph.
    return torch.ops.task_aware.mask_resynthesis(
        waveform.to(compute),
        masks.to(compute),
        tables.window,
        tables.weights,
        tables.bands,
        tables.cells,
        tables.roots,
        hop,
    ).to(result)


def _fake(waveform: Tensor, masks: Tensor, *constants: Any) -> Tensor:
    return waveform.new_empty((*masks.shape[:2], waveform.shape[1]))


def _fake_backward(grad: Tensor, *constants: Any) -> Tensor:
    cells, hop = constants[-3], constants[-1]
    return grad.new_empty((*grad.shape[:2], cells.shape[0] - 1, grad.shape[2] // hop + 1))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    waveform, masks, *tables, ctx.hop = inputs
    # The gradient by the masks does not depend on them.
    ctx.save_for_backward(waveform, masks if ctx.needs_input_grad[0] else None, *tables)


def _waveform_gradient(grad: Tensor, masks: Tensor, window: Tensor, weights: Tensor, bands: Tensor, hop: int) -> Tensor:
    """The adjoint by the waveform, in PyTorch: sources are masked once more, their sum goes back to samples."""
    F, T = masks.shape[-2:]
    N, n_fft = grad.shape[-1], window.shape[0]
    half, covered = n_fft // 2, (T - 1) * hop + n_fft
    envelope = _overlap_add(window.square().expand(1, T, n_fft), hop)[0]
    placed = torch.nn.functional.pad(grad, (half, max(0, covered - half - N)))[..., :covered]
    spectrum = torch.fft.rfft((placed / envelope).unfold(-1, n_fft, hop) * window)
    upper = (bands + 1).clamp(max=F - 1)
    bins = masks[:, :, bands] * weights[0][:, None] + masks[:, :, upper] * weights[1][:, None]
    masked = (spectrum * bins.transpose(-1, -2)).sum(1)
    folded = _overlap_add(torch.fft.irfft(masked, n_fft) * window, hop)
    return unreflect(torch.nn.functional.pad(folded, (0, N + 2 * half - covered)), half)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    waveform, masks, window, weights, bands, cells, roots = ctx.saved_tensors
    grad_waveform = grad_masks = None
    if ctx.needs_input_grad[1]:
        grad_masks = torch.ops.task_aware.mask_resynthesis_backward(
            grad, waveform, window, weights, bands, cells, roots, ctx.hop
        )
    if ctx.needs_input_grad[0] and grad.numel() == 0:
        grad_waveform = torch.zeros_like(waveform)
    elif ctx.needs_input_grad[0]:
        grad_waveform = _waveform_gradient(grad, masks, window, weights, bands, ctx.hop)
    return grad_waveform, grad_masks, None, None, None, None, None, None


if has_kernels():
    torch.library.register_fake("task_aware::mask_resynthesis", _fake)
    torch.library.register_fake("task_aware::mask_resynthesis_backward", _fake_backward)
    register_autograd("mask_resynthesis", _backward, setup_context=_setup_context)
    refuse_second_derivatives("mask_resynthesis")
