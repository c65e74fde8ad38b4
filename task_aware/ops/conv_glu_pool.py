"""The baseline detector's first block on its one channel: convolution, gated linear unit and pooling in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _check
from ._dispatch import Backend, has_kernels, outside_autocast, refuse_second_derivatives, register_autograd, use_native
from .glu_pool import check_pool, empty_output, glu_pool_reference

#: The most channels that the CUDA kernels hold in registers.
MOST_CHANNELS_ON_CUDA = 16


@outside_autocast
def conv_glu_pool_reference(
    features: Tensor, kernel: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, pool: tuple[int, int]
) -> Tensor:
    """Pure PyTorch definition of :func:`conv_glu_pool`."""
    compute = torch.promote_types(features.dtype, torch.float32)
    kernel, weight = kernel.to(features.dtype).to(compute), weight.to(features.dtype)
    x = torch.nn.functional.conv2d(features.to(compute)[:, None], kernel[:, None], shift.to(compute), padding=1)
    return glu_pool_reference(x, weight, bias, pool).to(features.dtype)


def conv_glu_pool(
    features: Tensor,
    kernel: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor,
    pool: tuple[int, int],
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Fuses a zero-padded 3x3 convolution of one channel with :func:`glu_pool`::

        x[b,c,f,t] = shift[c] + sum over i, j of kernel[c,i,j] * features[b,f+i-1,t+j-1]
        out = avg_pool((bias + weight x) * sigmoid(x), pool)

    The convolution's output, which is C times as large as the features, is never stored: the backward recomputes it.

    Args:
        features: ``[B,F,T]``, float32, float64 or bfloat16 (rounded to bfloat16, but summed in float32).
        kernel: ``[C,3,3]``, floating; rounded to the features' dtype, like the weight. On CUDA, C is at most 16.
        shift, bias: ``[C]``, floating.
        weight: ``[C,C]``, floating.
        pool: number of mel bands and of frames per pool, as in :func:`glu_pool`.
        backend: ``auto``, ``native`` or ``reference``.

    Returns:
        ``[B,C,F // pool[0],T // pool[1]]`` in the features' dtype and the memory layout of :func:`glu_pool`.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape or device.
        BackendError: the device has no native kernels and the backend is not ``reference``.
    """
    tensors = {"features": features, "kernel": kernel, "shift": shift, "weight": weight, "bias": bias}
    _check.floating("conv_glu_pool", **tensors)
    if features.dim() != 3:
        raise ValueError(f"conv_glu_pool: features is {_check.shape(features)}, expected [B,F,T].")
    C = kernel.shape[0] if kernel.dim() else 0
    _check.has_shape("conv_glu_pool", "kernel", kernel, (C, 3, 3), "[C,3,3]")
    _check.has_shape("conv_glu_pool", "weight", weight, (C, C), "[C,C]")
    for name, tensor in (("shift", shift), ("bias", bias)):
        _check.has_shape("conv_glu_pool", name, tensor, (C,), "[C]")
    check_pool("conv_glu_pool", "features", features, C, pool)
    _check.same_device("conv_glu_pool", **tensors)
    if backend != "reference" and features.device.type == "cuda" and C > MOST_CHANNELS_ON_CUDA:
        raise ValueError(
            f"conv_glu_pool: there are {C} channels, expected at most {MOST_CHANNELS_ON_CUDA} on CUDA; "
            "use a convolution and glu_pool, or backend='reference'."
        )
    if not use_native("conv_glu_pool", backend, features):
        return conv_glu_pool_reference(features, kernel, shift, weight, bias, pool)
    compute = torch.promote_types(features.dtype, torch.float32)
    kernel, weight = kernel.to(features.dtype), weight.to(features.dtype)
    weights = (tensor.to(compute) for tensor in (kernel, shift, weight, bias))
    return torch.ops.task_aware.conv_glu_pool(features, *weights, *pool)


def _fake(features: Tensor, kernel: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, mel: int, time: int) -> Tensor:
    B, F, T = features.shape
    return empty_output(features, B, kernel.shape[0], F // mel, T // time)


def _fake_backward(
    grad: Tensor, features: Tensor, kernel: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, mel: int, time: int
) -> Tensor:
    return torch.empty_like(features, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.pool = inputs[5:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors
    grads: list[Tensor | None] = [None] * 5
    if ctx.needs_input_grad[0]:
        grads[0] = torch.ops.task_aware.conv_glu_pool_backward(grad, *inputs, *ctx.pool)
    if any(ctx.needs_input_grad[1:5]):
        # A frozen detector never comes here.
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            # Views, since the features may depend on the weights too.
            features, kernel, shift, weight, bias = views = [tensor.view_as(tensor) for tensor in inputs]
            out = conv_glu_pool_reference(features, kernel, shift, weight, bias, ctx.pool)
            wanted = [k for k in range(1, 5) if ctx.needs_input_grad[k]]
            found = torch.autograd.grad(out, [views[k] for k in wanted], grad.to(out.dtype), create_graph=create_graph)
        for k, of_weight in zip(wanted, found, strict=True):
            grads[k] = of_weight
    return *grads, None, None


if has_kernels():
    torch.library.register_fake("task_aware::conv_glu_pool", _fake)
    torch.library.register_fake("task_aware::conv_glu_pool_backward", _fake_backward)
    register_autograd("conv_glu_pool", _backward, setup_context=_setup_context)
    refuse_second_derivatives("conv_glu_pool")
