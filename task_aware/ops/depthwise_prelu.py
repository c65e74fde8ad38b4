"""The mask network's depthwise convolution, fused with the PReLU after it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _check
from ._dispatch import Backend, has_kernels, outside_autocast, refuse_second_derivatives, register_autograd, use_native


@outside_autocast
def depthwise_prelu_reference(x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor, dilation: int) -> Tensor:
    """Pure PyTorch definition of :func:`depthwise_prelu`."""
    compute = torch.promote_types(x.dtype, torch.float32)
    u = torch.nn.functional.conv1d(
        x.to(compute),
        weight.to(compute)[:, None],
        bias.to(compute),
        padding=dilation,
        dilation=dilation,
        groups=max(1, x.shape[1]),
    )
    return torch.nn.functional.prelu(u, slope.to(compute)).to(x.dtype)


def depthwise_prelu(
    x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor, dilation: int = 1, *, backend: Backend = "auto"
) -> Tensor:
    """Computes a zero-padded depthwise convolution over three frames, then PReLU::

        u[b,c,t] = bias[c] + sum over k < 3 of weight[c,k] * x[b,c,t + (k-1) * dilation], zeros outside
        y = u where u > 0, else slope * u

    The middle of a Conv-TasNet block (Luo and Mesgarani, 2019). The backward recomputes u instead of storing it.

    Args:
        x: ``[B,C,T]``, float32, float64 or bfloat16 (summed in float32).
        weight: ``[C,3]``, floating.
        bias: ``[C]``, floating.
        slope: ``[1]``, floating.
        dilation: distance between the three frames, at least 1.
        backend: ``auto``, ``native`` or ``reference``.

    Returns:
        ``[B,C,T]`` in x's dtype.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape or device.
        BackendError: the device has no native kernels and the backend is not ``reference``.
    """
    tensors = {"x": x, "weight": weight, "bias": bias, "slope": slope}
    _check.floating("depthwise_prelu", **tensors)
    if x.dim() != 3:
        raise ValueError(f"depthwise_prelu: x is {_check.shape(x)}, expected [B,C,T].")
    C = x.shape[1]
    _check.has_shape("depthwise_prelu", "weight", weight, (C, 3), "[C,3]")
    _check.has_shape("depthwise_prelu", "bias", bias, (C,), "[C]")
    _check.has_shape("depthwise_prelu", "slope", slope, (1,), "[1]")
    if dilation < 1:
        raise ValueError(f"depthwise_prelu: dilation is {dilation}, expected at least 1.")
    _check.same_device("depthwise_prelu", **tensors)
    if not use_native("depthwise_prelu", backend, x):
        return depthwise_prelu_reference(x, weight, bias, slope, dilation)
    compute = torch.promote_types(x.dtype, torch.float32)
    weights = (tensor.to(compute) for tensor in (weight, bias, slope))
    return torch.ops.task_aware.depthwise_prelu(x, *weights, dilation)


def _fake(x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor, dilation: int) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _fake_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, slope: Tensor, dilation: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    return _fake(x, weight, bias, slope, dilation), grad_weight, bias.new_empty(bias.shape), bias.new_empty(bias.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.dilation = inputs[4]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_x, grad_weight, grad_bias, by_channel = torch.ops.task_aware.depthwise_prelu_backward(
        grad, *ctx.saved_tensors, ctx.dilation
    )
    return grad_x, grad_weight, grad_bias, by_channel.sum(0, keepdim=True), None


if has_kernels():
    torch.library.register_fake("task_aware::depthwise_prelu", _fake)
    torch.library.register_fake("task_aware::depthwise_prelu_backward", _fake_backward)
    register_autograd("depthwise_prelu", _backward, setup_context=_setup_context)
    refuse_second_derivatives("depthwise_prelu")
