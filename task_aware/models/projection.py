"""Converts masks on mel bands to waveforms, by applying them to the bins of the mixture's Fourier transform.

This is a projection, not a waveform separation. A source keeps the mixture's phase, sounds in the same mel band at the
same time are not separated, and frequencies above half the detector's sample rate are lost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from task_aware.models.features import FeatureConfig
from task_aware.ops.mel_spectrogram import hamming_window, mel_filterbank


def band_weights(front_end: FeatureConfig) -> Tensor:
    """Weights `[n_fft // 2 + 1, F]` of the mel bands for each bin: the filter bank's transpose, with rows summing to 1.

    Between the centres of two bands this interpolates linearly. A bin that no filter covers takes the nearest band.
    """
    bank = mel_filterbank(
        front_end.sample_rate, front_end.n_fft, front_end.n_mels, front_end.f_min, front_end.f_max
    ).T  # [bins, F]
    reached = (bank.sum(1) > 0).nonzero()[:, 0]
    bins = torch.arange(len(bank))
    nearest = reached[(bins[:, None] - reached).abs().argmin(1)]
    bank = bank[nearest]
    return (bank / bank.sum(1, keepdim=True)).float()


def project(waveform: Tensor, mask: Tensor, front_end: FeatureConfig, *, lead: int = 0) -> Tensor:
    """Separates mixtures by masks on their mel-spectrogram.

    If the masks of all sources sum to 1, the sources sum to the mixture.

    Args:
        waveform: mixtures `[B, N]`.
        mask: masks `[B, S, F, T]` in [0, 1] for the frames centred at `lead + t * hop`; frames before and after use
            the first and the last mask.
        front_end: front end that defines the masks' bands and frames.
        lead: samples before the first masked frame, a multiple of the hop.

    Returns:
        The sources `[B, S, N]`.
    """
    window = hamming_window(front_end.n_fft, device=waveform.device).to(waveform.dtype)
    n_fft, hop = front_end.n_fft, front_end.hop
    spectrum = torch.stft(waveform, n_fft, hop, window=window, return_complex=True)
    linear = band_weights(front_end).to(waveform) @ mask.to(waveform.dtype)
    before = lead // hop
    after = spectrum.shape[-1] - before - mask.shape[-1]
    frames = torch.arange(-before, mask.shape[-1] + after, device=mask.device).clamp(0, mask.shape[-1] - 1)
    sources = spectrum[:, None] * linear[..., frames]
    n_samples = waveform.shape[-1]
    return torch.istft(sources.flatten(0, 1), n_fft, hop, window=window, length=n_samples).unflatten(0, mask.shape[:2])
