"""The detector's front end: a waveform's mel-spectrogram of linear amplitude."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_HERTZ_PER_MEL = 200.0 / 3
_LOG_START_HERTZ = 1000.0
_LOG_START_MEL = _LOG_START_HERTZ / _HERTZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27.0


def _hertz_to_mel(frequency: float) -> float:
    if frequency < _LOG_START_HERTZ:
        return frequency / _HERTZ_PER_MEL
    return _LOG_START_MEL + math.log(frequency / _LOG_START_HERTZ) / _LOG_STEP


def mel_filterbank(
    sample_rate: int = 16000,
    n_fft: int = 2048,
    n_mels: int = 128,
    f_min: float = 0.0,
    f_max: float = 8000.0,
    *,
    device: torch.device | str | None = None,
) -> Tensor:
    """Triangular mel filters ``[n_mels, n_fft // 2 + 1]`` of peak height 1, in float64.

    Slaney's mel scale (linear below 1 kHz, logarithmic above), no area normalisation:
    ``librosa.filters.mel(htk=False, norm=None)``.

    Args:
        sample_rate: hertz.
        n_fft: length of the Fourier transform in samples.
        n_mels: number of bands.
        f_min: lower edge of the first band, hertz.
        f_max: upper edge of the last band, hertz.
        device: where the filters are made.
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


def hamming_window(length: int, *, device: torch.device | str | None = None) -> Tensor:
    """The symmetric Hamming window ``0.54 - 0.46 cos(2 pi n / (length - 1))`` in float64."""
    return torch.hamming_window(length, periodic=False, dtype=torch.float64, device=device)


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
        return waveform.new_zeros(*waveform.shape[:-1], n_mels, waveform.shape[-1] // hop + 1)
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
    backend: str = "auto",
) -> Tensor:
    return mel_spectrogram_reference(
        waveform, sample_rate=sample_rate, n_fft=n_fft, hop=hop, n_mels=n_mels, f_min=f_min, f_max=f_max
    )
