"""Masking of a mel-spectrogram and the detector's decibel features, in one pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class MaskedMel(NamedTuple):
    """The separated mel-spectrograms of :func:`mel_mask`."""

    mel: Tensor
    """``[B,S,F,T]`` linear amplitude: mask times mixture."""
    features: Tensor
    """``[B,S,F,T]`` scaled decibels, what the detector reads."""


def mel_mask_reference(
    logits: Tensor,
    mel: Tensor,
    mean: Tensor,
    std: Tensor,
    *,
    floor: float = 0.0,
    amin: float = 1e-5,
    top_db: float = 80.0,
) -> MaskedMel:
    """Pure PyTorch definition of :func:`mel_mask`.

    The clamp at ``top_db`` below the maximum is done on amplitudes, before the logarithm: the same function, and
    ties of the maximum are ties of amplitudes.
    """
    result = torch.promote_types(logits.dtype, mel.dtype)
    compute = torch.promote_types(result, torch.float32)
    mask = floor + (1 - floor) * torch.sigmoid(logits.to(compute))
    masked = mask * mel.to(compute).unsqueeze(1)
    amplitude = masked.clamp(min=amin)
    threshold = amplitude.amax((-2, -1), keepdim=True) * 10 ** (-top_db / 20)
    decibels = 20 * torch.log10(amplitude.clamp(min=threshold))
    features = (decibels - mean.to(compute)[:, None]) / std.to(compute)[:, None]
    return MaskedMel(masked.to(result), features.to(result))


def mel_mask(
    logits: Tensor,
    mel: Tensor,
    mean: Tensor,
    std: Tensor,
    *,
    floor: float = 0.0,
    amin: float = 1e-5,
    top_db: float = 80.0,
    backend: str = "auto",
) -> MaskedMel:
    return mel_mask_reference(logits, mel, mean, std, floor=floor, amin=amin, top_db=top_db)
