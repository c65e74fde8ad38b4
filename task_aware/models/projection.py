"""From masks on mel bands to waveforms: the masks carried to the bins of the mixture's Fourier transform.

This is a projection, not a separation of waveforms: a source keeps the mixture's phase, what sounds within one mel band
at one time cannot be told apart, and whatever the detector's front end does not hear (above half its rate) is gone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from task_aware.models.features import FeatureConfig
from task_aware.ops.mel_spectrogram import hamming_window, mel_filterbank


def band_weights(front_end: FeatureConfig) -> Tensor:
    """Shares `[n_fft // 2 + 1, F]` of the mel bands in each bin: the filter bank's transpose, rows summing to 1.

    Between two bands' centres that is their linear interpolation. A bin that no filter reaches has the band nearest
    to it.
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
    """Sources of a mixture by their masks on its mel-spectrogram.

    Where the masks of all sources sum to 1, the sources sum to the mixture.

    Args:
        waveform: mixtures `[B, N]`.
        mask: `[B, S, F, T]` in [0, 1], of the frames centred at `lead + t * hop`; the frames before and after take
            those of the first and the last.
        front_end: what the masks' bands and frames mean.
        lead: samples before the first masked frame, a multiple of the hop.

    Returns:
        `[B, S, N]`.
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
