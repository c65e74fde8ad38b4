"""Converts masks on mel bands to waveforms, by applying them to the bins of the mixture's Fourier transform.

This is a projection, not a waveform separation. A source keeps the mixture's phase, sounds in the same mel band at the
same time are not separated, and frequencies above half the detector's sample rate are lost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from task_aware.models.features import FeatureConfig


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
    frames = torch.arange(front_end.n_frames(waveform.shape[-1]), device=mask.device) - lead // front_end.hop
    return front_end.resynthesise(waveform, mask[..., frames.clamp(0, mask.shape[-1] - 1)].to(waveform.dtype))


def project_sources(
    waveform: Tensor, sources: Tensor, mixture_mel: Tensor, front_end: FeatureConfig, *, lead: int = 0
) -> Tensor:
    """As `project`, of sources that are given as linear mel `[B, S, F, T]`, beside that of the mixtures `[B, F, T]`."""
    mask = sources / mixture_mel[:, None].clamp_min(torch.finfo(torch.float32).tiny)
    return project(waveform, mask, front_end, lead=lead)
