"""Reverberant mixing: convolves each source with its room impulse response, scales it and sums them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, overload

import torch
from torch import Tensor

from . import _check
from ._dispatch import Backend, constant_in_graphs, has_kernels, register_autograd, served_by_cuda, use_native
from ._tables import fft_roots

# The transform sizes that csrc/cuda/reverb_mix.cuh chooses from.
_CUDA_TRANSFORMS = {torch.float32: (1024, 4096, 8192, 16384), torch.float64: (1024, 4096)}


class Mixture(NamedTuple):
    """The result of :func:`reverb_mix`."""

    images: Tensor
    """``[B,S,N]``: the reverberant, scaled sources."""
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


def reverb_mix_reference(sources: Tensor, rirs: Tensor, gains: Tensor, background: Tensor | None = None) -> Mixture:
    """Pure PyTorch definition of :func:`reverb_mix`, with one FFT of length at least N + L - 1 per source."""
    compute = torch.promote_types(sources.dtype, torch.float32)
    samples = sources.shape[-1]
    rirs = rirs[..., :samples].to(compute)
    images = gains.to(compute).unsqueeze(-1) * sources.to(compute)
    if sources.numel() > 0:
        length = fast_fft_length(samples + rirs.shape[-1] - 1)
        spectrum = torch.fft.rfft(sources.to(compute), length) * torch.fft.rfft(rirs, length)
        images = gains.to(compute).unsqueeze(-1) * torch.fft.irfft(spectrum, length)[..., :samples]
    mixture = images.sum(1)
    if background is not None:
        mixture = mixture + background.to(compute)
    return Mixture(images.to(sources.dtype), mixture.to(sources.dtype))


@overload
def reverb_mix(
    sources: Tensor,
    rirs: Tensor,
    gains: Tensor,
    background: Tensor | None = None,
    *,
    images: Literal[True] = True,
    backend: Backend = "auto",
) -> Mixture: ...


@overload
def reverb_mix(
    sources: Tensor,
    rirs: Tensor,
    gains: Tensor,
    background: Tensor | None = None,
    *,
    images: Literal[False],
    backend: Backend = "auto",
) -> Tensor: ...


def reverb_mix(
    sources: Tensor,
    rirs: Tensor,
    gains: Tensor,
    background: Tensor | None = None,
    *,
    images: bool = True,
    backend: Backend = "auto",
) -> Mixture | Tensor:
    """Convolves each source with its room impulse response, scales it and sums all of them::

        images[b,s,n] = gains[b,s] * sum over l of rirs[b,s,l] * sources[b,s,n-l]     0 <= l < L, n - l >= 0
        mixture[b,n]  = background[b,n] + sum over s of images[b,s,n]

    The convolution is causal and cut at N, so that the labels of the dry sources remain valid. All four inputs get
    gradients. The error is that of an FFT over the clip: it is relative to the loudest part of a source. A source whose
    gain is 0 or whose samples are all 0 is silent, whatever its response contains.

    Args:
        sources: ``[B,S,N]`` dry samples, float32, float64 or bfloat16 (computed in float32).
        rirs: ``[B,S,L]`` room impulse responses, L >= 1; only the first N samples are used.
        gains: ``[B,S]``, linear.
        background: ``[B,N]``, or None.
        images: whether to return the images. The mixture alone takes less time: one inverse transform per clip instead
            of one per source.
        backend: ``auto``, ``native`` or ``reference``.

    Returns:
        ``Mixture(images [B,S,N], mixture [B,N])`` in the sources' dtype; without images, the mixture alone.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape or device.

    On CUDA a table is made once for each dtype and device and copied there: call this once before capturing a CUDA
    graph.
    """
    tensors = {"sources": sources, "rirs": rirs, "gains": gains}
    if background is not None:
        tensors["background"] = background
    _check.floating("reverb_mix", **tensors)
    for name, tensor in tensors.items():
        _check.dtype("reverb_mix", name, tensor, sources.dtype)
    if sources.dim() != 3:
        raise ValueError(f"reverb_mix: sources is {_check.shape(sources)}, expected [B,S,N].")
    B, S, N = sources.shape
    if rirs.dim() != 3 or rirs.shape[:2] != sources.shape[:2] or rirs.shape[2] == 0:
        raise ValueError(f"reverb_mix: rirs is {_check.shape(rirs)}, expected [B,S,L] = [{B},{S},L] with L >= 1.")
    _check.has_shape("reverb_mix", "gains", gains, (B, S), "[B,S]")
    if background is not None:
        _check.has_shape("reverb_mix", "background", background, (B, N), "[B,N]")
    _check.same_device("reverb_mix", **tensors)
    if not use_native("reverb_mix", backend, sources):
        mixed = reverb_mix_reference(sources, rirs, gains, background)
        return mixed if images else mixed.mixture
    compute = torch.promote_types(sources.dtype, torch.float32)
    made, mixture = torch.ops.task_aware.reverb_mix(
        sources.to(compute),
        rirs.to(compute),
        gains.to(compute),
        None if background is None else background.to(compute),
        _roots(compute, sources.device) if served_by_cuda(sources) else None,
        images,
    )
    mixture = mixture.to(sources.dtype)
    return Mixture(made.to(sources.dtype), mixture) if images else mixture


@constant_in_graphs
def _roots(dtype: torch.dtype, device: torch.device) -> Tensor:
    return fft_roots(_CUDA_TRANSFORMS[dtype], dtype, device)


def _fake(
    sources: Tensor, rirs: Tensor, gains: Tensor, background: Tensor | None, roots: Tensor | None, wants_images: bool
) -> tuple[Tensor, Tensor]:
    B, S, N = sources.shape
    return sources.new_empty((B, S, N if wants_images else 0)), sources.new_empty((B, N))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    sources, rirs, gains, _, roots, ctx.wants_images = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(sources, rirs, gains, roots)


def _correlate(grad_reversed: Tensor, with_what: Tensor, roots: Tensor | None, length: int) -> Tensor:
    """``sum over n of grad[n] with_what[n - m]`` for 0 <= m < length, by convolution in reversed time."""
    ones = with_what.new_ones(with_what.shape[:2])
    images, _ = torch.ops.task_aware.reverb_mix(grad_reversed, with_what, ones, None, roots, True)
    correlation = images.flip(-1)[..., :length]
    return torch.nn.functional.pad(correlation, (0, length - correlation.shape[-1]))


def _backward(ctx: Any, grad_images: Tensor | None, grad_mixture: Tensor | None) -> tuple[Tensor | None, ...]:
    sources, rirs, gains, roots = ctx.saved_tensors
    grad_sources = grad_rirs = grad_gains = None
    if not ctx.wants_images:
        grad_images = None
    if grad_mixture is not None:
        through_mixture = grad_mixture.unsqueeze(1).expand_as(sources)
        grad_images = through_mixture if grad_images is None else grad_images + through_mixture
    if grad_images is None:
        return None, None, None, None, None, None
    if sources.numel() == 0:
        return torch.zeros_like(sources), torch.zeros_like(rirs), torch.zeros_like(gains), grad_mixture, None, None
    grad_reversed = grad_images.flip(-1)
    if ctx.needs_input_grad[0] or ctx.needs_input_grad[2]:
        correlation = _correlate(grad_reversed, rirs, roots, sources.shape[-1])
        grad_sources = gains.unsqueeze(-1) * correlation
        grad_gains = (correlation * sources).sum(-1)
    if ctx.needs_input_grad[1]:
        grad_rirs = gains.unsqueeze(-1) * _correlate(grad_reversed, sources, roots, rirs.shape[-1])
    return grad_sources, grad_rirs, grad_gains, grad_mixture if ctx.needs_input_grad[3] else None, None, None


if has_kernels():
    torch.library.register_fake("task_aware::reverb_mix", _fake)
    register_autograd("reverb_mix", _backward, setup_context=_setup_context)
