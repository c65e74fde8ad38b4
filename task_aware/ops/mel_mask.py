"""Masking of a mel-spectrogram, fused with the detector's decibel features."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _check
from ._dispatch import Backend, has_kernels, outside_autocast, refuse_second_derivatives, register_autograd, use_native


class MaskedMel(NamedTuple):
    """The separated mel-spectrograms of :func:`mel_mask`."""

    mel: Tensor
    """``[B,S,F,T]`` linear amplitude: mask times mixture."""
    features: Tensor
    """``[B,S,F,T]`` scaled decibels, the input of the detector."""


@outside_autocast
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

    The clamp at ``top_db`` below the maximum is applied to amplitudes, before the logarithm. The function is the same,
    and ties of the maximum are ties of amplitudes.
    """
    result = torch.promote_types(logits.dtype, mel.dtype)
    compute = torch.promote_types(result, torch.float32)
    if logits.numel() == 0:
        empty = logits.to(result) * mel.to(result).unsqueeze(1)
        return MaskedMel(empty, empty.clone())
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
    backend: Backend = "auto",
) -> MaskedMel:
    """Masks a mixture's mel-spectrogram and converts each source to the detector's features.

    With ``mask = floor + (1 - floor) sigmoid(logits)``::

        mel      = mask * mixture mel
        decibels = max(20 log10(max(amin, mel)), its maximum over F and T - top_db)
        features = (decibels - mean) / std

    The maximum is taken for each source of each clip. Gradients with respect to ``logits`` and ``mel`` are exact: an
    element below ``amin`` has none through the features, one clamped at ``top_db`` below the maximum passes its
    gradient to the maximum, and equal maxima share it evenly, as in :func:`torch.amax`. A NaN makes all features of
    its source NaN. Besides the inputs, only the maxima are stored for the backward, which recomputes the mask. On the
    CPU the float32 exponential and logarithm are within two units in the last place; on CUDA decibels are within 5e-7
    of their value and, for logits between -15 and 15, 2e-5.

    Args:
        logits: ``[B,S,F,T]``, float32, float64 or bfloat16.
        mel: ``[B,F,T]`` linear amplitude of the mixture. If the dtypes differ, both are converted to the wider one;
            bfloat16 is computed in float32.
        mean: mean ``[F]`` of the detector's scaler, decibels; no gradient.
        std: standard deviation ``[F]`` of the detector's scaler, decibels, not 0; no gradient.
        floor: smallest value of the mask, 0 <= floor < 1.
        amin: amplitude below which values are clamped before the logarithm, above 0 (native kernels: at least 1.2e-38).
        top_db: dynamic range kept below each maximum, decibels, at least 0; infinity disables the clamp.
        backend: ``auto``, ``native`` or ``reference``.

    Returns:
        ``MaskedMel(mel, features)``, both ``[B,S,F,T]``.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, device or range.
    """
    _check.floating("mel_mask", logits=logits, mel=mel, mean=mean, std=std)
    if logits.dim() != 4 or logits.shape[2] == 0 or logits.shape[3] == 0:
        raise ValueError(f"mel_mask: logits is {_check.shape(logits)}, expected [B,S,F,T] with F and T of at least 1.")
    B, _, F, T = logits.shape
    _check.has_shape("mel_mask", "mel", mel, (B, F, T), "[B,F,T]")
    _check.has_shape("mel_mask", "mean", mean, (F,), "[F]")
    _check.has_shape("mel_mask", "std", std, (F,), "[F]")
    _check.same_device("mel_mask", logits=logits, mel=mel, mean=mean, std=std)
    if not 0 <= floor < 1:
        raise ValueError(f"mel_mask: floor is {floor}, expected 0 <= floor < 1.")
    if not amin > 0:
        raise ValueError(f"mel_mask: amin is {amin}, expected an amplitude above 0.")
    if not top_db >= 0:
        raise ValueError(f"mel_mask: top_db is {top_db}, expected at least 0 decibels.")
    mean, std = mean.detach(), std.detach()
    if not use_native("mel_mask", backend, logits):
        return mel_mask_reference(logits, mel, mean, std, floor=floor, amin=amin, top_db=top_db)
    result = torch.promote_types(logits.dtype, mel.dtype)
    compute = torch.promote_types(result, torch.float32)
    masked, features, _ = torch.ops.task_aware.mel_mask(
        logits.to(result), mel.to(result), mean.to(compute), std.to(compute), floor, amin, top_db
    )
    return MaskedMel(masked, features)


def _fake(
    logits: Tensor, mel: Tensor, mean: Tensor, std: Tensor, floor: float, amin: float, top_db: float
) -> tuple[Tensor, Tensor, Tensor]:
    return logits.new_empty(logits.shape), logits.new_empty(logits.shape), std.new_empty(logits.shape[:2])


def _fake_backward(
    grad_masked: Tensor | None, grad_features: Tensor | None, logits: Tensor, mel: Tensor, *constants: Any
) -> tuple[Tensor, Tensor]:
    wants_mel = constants[-1]
    return logits.new_empty(logits.shape), mel.new_empty(mel.shape if wants_mel else 0)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, mel, _, std, *ctx.options = inputs
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, mel, std, output[2])


def _backward(ctx: Any, grad_masked: Tensor | None, grad_features: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if grad_masked is None and grad_features is None:
        return (None,) * 7
    wants_mel = ctx.needs_input_grad[1]
    grad_logits, grad_mel = torch.ops.task_aware.mel_mask_backward(
        grad_masked, grad_features, *ctx.saved_tensors, *ctx.options, wants_mel
    )
    return (grad_logits, grad_mel if wants_mel else None, None, None, None, None, None)


if has_kernels():
    torch.library.register_fake("task_aware::mel_mask", _fake)
    torch.library.register_fake("task_aware::mel_mask_backward", _fake_backward)
    register_autograd("mel_mask", _backward, setup_context=_setup_context)
    refuse_second_derivatives("mel_mask")
