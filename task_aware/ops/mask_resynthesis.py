"""Waveforms of sources from masks on a mixture's mel-spectrogram."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _check
from ._dispatch import Backend, outside_autocast
from .mel_spectrogram import _bins_of_filters, hamming_window, mel_filterbank


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
    """Pure PyTorch definition of :func:`mask_resynthesis`: ``torch.stft``, the mask and ``torch.istft``, spelled out."""
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
    ``n_fft``) are 0. Both the masks and the waveform get gradients. A NaN or infinity spoils the frames that hold it,
    and may spoil a neighbouring one; it never reaches other sources or clips.

    Args:
        waveform: mixtures ``[B,N]``, N > n_fft / 2; float32, float64 or bfloat16.
        masks: ``[B,S,F,T]``, T = N // hop + 1, any values. If the dtypes differ, both are converted to the wider one;
            bfloat16 is computed in float32.
        sample_rate: sample rate, hertz.
        n_fft: frame length in samples, even.
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
    if not any(_bins_of_filters(sample_rate, n_fft, masks.shape[2], f_min, f_max)):
        raise ValueError(
            f"mask_resynthesis: no bin of {n_fft} samples at {sample_rate} Hz lies between f_min = {f_min} and "
            f"f_max = {f_max} Hz; use a longer n_fft or a wider range."
        )
    return mask_resynthesis_reference(
        waveform, masks, sample_rate=sample_rate, n_fft=n_fft, hop=hop, f_min=f_min, f_max=f_max
    )
