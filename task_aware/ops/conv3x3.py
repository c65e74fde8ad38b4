"""A 3x3 convolution by Winograd's algorithm, which takes a third of the multiplications."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight

from ..base.errors import BackendError
from . import _check
from ._dispatch import Backend, has_kernels, outside_autocast, register_autograd, use_native
from .glu_pool import empty_output


@outside_autocast
def conv3x3_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Pure PyTorch definition of :func:`conv3x3`."""
    compute = torch.promote_types(x.dtype, torch.float32)
    out = torch.nn.functional.conv2d(x.to(compute), weight.to(compute), bias.to(compute), padding=1)
    return out.to(x.dtype)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Convolves, with zeros outside, as ``torch.nn.functional.conv2d(x, weight, bias, padding=1)``::

        out[b,k,f,t] = bias[k] + sum over c, i, j of weight[k,c,i,j] * x[b,c,f+i-1,t+j-1]

    Errors are relative to the largest value nearby, within four bands and six frames; a value that is not finite spoils
    as many. CPU only.

    Args:
        x: ``[B,C,F,T]``, float32, float64 or bfloat16 (computed in float32). No copy is needed for memory that is
            channels last.
        weight: ``[K,C,3,3]``, floating.
        bias: ``[K]``, floating.
        backend: ``auto``, ``native`` or ``reference``.

    Returns:
        ``[B,K,F,T]`` in x's dtype; the kernel returns channels-last memory.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape or device.
        BackendError: the tensors are not on the CPU and the backend is not ``reference``.
    """
    _check.floating("conv3x3", x=x, weight=weight, bias=bias)
    if x.dim() != 4:
        raise ValueError(f"conv3x3: x is {_check.shape(x)}, expected [B,C,F,T].")
    C, K = x.shape[1], weight.shape[0] if weight.dim() else 0
    _check.has_shape("conv3x3", "weight", weight, (K, C, 3, 3), "[K,C,3,3]")
    _check.has_shape("conv3x3", "bias", bias, (K,), "[K]")
    if 0 in (C, K):
        raise ValueError(f"conv3x3: C and K are {C} and {K}, expected at least 1.")
    _check.same_device("conv3x3", x=x, weight=weight, bias=bias)
    if backend != "reference" and x.device.type == "cuda":
        raise BackendError("conv3x3 has no CUDA kernels; use torch.nn.functional.conv2d, or backend='reference'.")
    if not use_native("conv3x3", backend, x):
        return conv3x3_reference(x, weight, bias)
    compute = torch.promote_types(x.dtype, torch.float32)
    return torch.ops.task_aware.conv3x3(x.to(compute), weight.to(compute), bias.to(compute)).to(x.dtype)


def _fake(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    B, _, F, T = x.shape
    return empty_output(x, B, weight.shape[0], F, T)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    x, weight = ctx.saved_tensors
    wanted_x, wanted_weight, wanted_bias = ctx.needs_input_grad
    grad_x = grad_weight = None
    if wanted_x:
        mirrored = weight.flip(2, 3).transpose(0, 1)
        grad_x = torch.ops.task_aware.conv3x3(grad, mirrored, mirrored.new_zeros(len(mirrored)))
    if wanted_weight:
        # A frozen detector never comes here.
        grad_weight = conv2d_weight(x, weight.shape, grad, padding=1)
    return grad_x, grad_weight, grad.sum((0, 2, 3)) if wanted_bias else None


if has_kernels():
    torch.library.register_fake("task_aware::conv3x3", _fake)
    register_autograd("conv3x3", _backward, setup_context=_setup_context)
