"""Reverberant mixing: each source through its room, scaled, and their sum."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Mixture(NamedTuple):
    """What :func:`reverb_mix` returns."""

    images: Tensor
    """``[B,S,N]``: the sources after their rooms and gains."""
    mixture: Tensor
    """``[B,N]``: the sum of the images and the background."""


def fast_fft_length(minimum: int) -> int:
    """The smallest even length of the form 2^a 3^b 5^c that is at least ``minimum``."""
    best = 2
    while best < minimum:
        best *= 2
    power_of_five = 1
    while power_of_five < best:
        odd = power_of_five
        while odd < best:
            length = 2 * odd
            while length < minimum:
                length *= 2
            best = min(best, length)
            odd *= 3
        power_of_five *= 5
    return best


def reverb_mix_reference(
    sources: Tensor, rirs: Tensor, gains: Tensor, background: Tensor | None = None
) -> Mixture:
    """Pure PyTorch definition of :func:`reverb_mix`, with one FFT of length at least N + L - 1 per source."""
    compute = torch.promote_types(sources.dtype, torch.float32)
    samples = sources.shape[-1]
    rirs = rirs[..., :samples].to(compute)
    images = torch.zeros_like(sources, dtype=compute)
    if sources.numel() > 0:
        length = fast_fft_length(samples + rirs.shape[-1] - 1)
        spectrum = torch.fft.rfft(sources.to(compute), length) * torch.fft.rfft(rirs, length)
        images = gains.to(compute).unsqueeze(-1) * torch.fft.irfft(spectrum, length)[..., :samples]
    mixture = images.sum(1)
    if background is not None:
        mixture = mixture + background.to(compute)
    return Mixture(images.to(sources.dtype), mixture.to(sources.dtype))


def reverb_mix(
    sources: Tensor, rirs: Tensor, gains: Tensor, background: Tensor | None = None, *, backend: str = "auto"
) -> Mixture:
    return reverb_mix_reference(sources, rirs, gains, background)
