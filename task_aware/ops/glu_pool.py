"""The baseline detector's gated linear unit, fused with the average pooling after it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _check
from ._dispatch import Backend, has_kernels, outside_autocast, refuse_second_derivatives, register_autograd, use_native

#: Most frames per pool.
MOST_FRAMES = 32


def check_pool(operation: str, name: str, x: Tensor, C: int, pool: tuple[int, int]) -> None:
    """Raises ValueError unless ``x`` (``[...,F,T]``, called ``name``) is at least one pool large and has channels."""
    if len(pool) != 2 or min(pool) < 1 or pool[1] > MOST_FRAMES:
        raise ValueError(
            f"{operation}: pool is {tuple(pool)}, expected (mel, time), both at least 1 and time at most {MOST_FRAMES}."
        )
    if C == 0 or x.shape[-2] < pool[0] or x.shape[-1] < pool[1]:
        raise ValueError(f"{operation}: {name} is {_check.shape(x)}, which is too small for a pool of {tuple(pool)}.")


@outside_autocast
def glu_pool_reference(x: Tensor, weight: Tensor, bias: Tensor, pool: tuple[int, int]) -> Tensor:
    """Pure PyTorch definition of :func:`glu_pool`."""
    compute = torch.promote_types(x.dtype, torch.float32)
    gate = torch.sigmoid(x.to(compute))
    weight = weight.to(x.dtype).to(compute)[:, :, None, None]
    linear = torch.nn.functional.conv2d(x.to(compute), weight, bias.to(compute))
    return torch.nn.functional.avg_pool2d(linear * gate, pool).to(x.dtype)


def glu_pool(x: Tensor, weight: Tensor, bias: Tensor, pool: tuple[int, int], *, backend: Backend = "auto") -> Tensor:
    """Applies a linear map over channels at each position, gated by the sigmoid of its input, then average pooling::

        linear[b,c,f,t] = bias[c] + sum over k of weight[c,k] * x[b,k,f,t]
        out = avg_pool(linear * sigmoid(x), pool)

    The gate of the DCASE 2020 task 4 baseline CRNN. The backward recomputes the map and the gate from x instead of
    storing them.

    Args:
        x: ``[B,C,F,T]``, float32, float64 or bfloat16 (summed in float32). No copy is needed for channels-last memory
            on the CPU and for contiguous memory on a GPU.
        weight: ``[C,C]``, floating; rounded to x's dtype.
        bias: ``[C]``, floating.
        pool: number of mel bands and of frames (at most 32) per pool; incomplete pools at the ends are dropped.
        backend: ``auto``, ``native`` or ``reference``.

    Returns:
        ``[B,C,F // pool[0],T // pool[1]]`` in x's dtype; the CPU's kernel returns channels-last memory.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape or device.
    """
    _check.floating("glu_pool", x=x, weight=weight, bias=bias)
    if x.dim() != 4:
        raise ValueError(f"glu_pool: x is {_check.shape(x)}, expected [B,C,F,T].")
    C = x.shape[1]
    _check.has_shape("glu_pool", "weight", weight, (C, C), "[C,C]")
    _check.has_shape("glu_pool", "bias", bias, (C,), "[C]")
    check_pool("glu_pool", "x", x, C, pool)
    _check.same_device("glu_pool", x=x, weight=weight, bias=bias)
    if not use_native("glu_pool", backend, x):
        return glu_pool_reference(x, weight, bias, pool)
    compute = torch.promote_types(x.dtype, torch.float32)
    return torch.ops.task_aware.glu_pool(x, weight.to(x.dtype).to(compute), bias.to(compute), *pool)


def empty_output(x: Tensor, B: int, C: int, F: int, T: int) -> Tensor:
    """``[B,C,F,T]`` of x's dtype and device in the kernels' memory layout, which is channels last on the CPU."""
    return x.new_empty((B, C, F, T)) if x.is_cuda else x.new_empty((B, F, T, C)).permute(0, 3, 1, 2)


def _fake(x: Tensor, weight: Tensor, bias: Tensor, mel: int, time: int) -> Tensor:
    B, C, F, T = x.shape
    return empty_output(x, B, C, F // mel, T // time)


def _fake_backward(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mel: int, time: int) -> Tensor:
    return empty_output(x, *x.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int, int], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.pool = inputs[3:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
    x, weight, bias = ctx.saved_tensors
    grad_x = grad_weight = grad_bias = None
    if ctx.needs_input_grad[0]:
        grad_x = torch.ops.task_aware.glu_pool_backward(grad, x, weight, bias, *ctx.pool)
    if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
        # A frozen detector never comes here.
        mel, time = ctx.pool
        F, T = mel * grad.shape[2], time * grad.shape[3]
        used = x[..., :F, :T].to(weight.dtype)
        through_linear = grad.to(weight.dtype).repeat_interleave(mel, 2).repeat_interleave(time, 3) / (mel * time)
        through_linear = through_linear * torch.sigmoid(used)
        grad_weight = torch.einsum("bcft,bkft->ck", through_linear, used)
        grad_bias = through_linear.sum((0, 2, 3))
    return grad_x, grad_weight, grad_bias, None, None


if has_kernels():
    torch.library.register_fake("task_aware::glu_pool", _fake)
    torch.library.register_fake("task_aware::glu_pool_backward", _fake_backward)
    register_autograd("glu_pool", _backward, setup_context=_setup_context)
    refuse_second_derivatives("glu_pool")
