"""Reorders estimates to match their targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _check
from ._dispatch import Backend, has_kernels, register_autograd, use_native


def reorder_reference(estimates: Tensor, permutation: Tensor) -> Tensor:
    """Pure PyTorch definition of :func:`reorder`."""
    index = permutation.reshape(permutation.shape + (1,) * (estimates.dim() - 2))
    return estimates.gather(1, index.expand(estimates.shape))


def reorder(estimates: Tensor, permutation: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Reorders estimates to match their targets: ``out[b,j] = estimates[b, permutation[b,j]]``.

    Args:
        estimates: ``[B,S,*]``, float32, float64 or bfloat16.
        permutation: ``[B,S]`` int64, as returned by :func:`pit_loss`. A repeated index repeats its row, and the
            gradients of the copies add up.
        backend: ``auto``, ``native`` or ``reference``.

    Returns:
        ``[B,S,*]`` in the estimates' dtype, contiguous.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape or device.
        RuntimeError: an index is outside 0..S-1 (CPU). On CUDA indices are not checked: with the native kernels, such
            a row is NaN.
    """
    _check.floating("reorder", estimates=estimates)
    _check.dtype("reorder", "permutation", permutation, torch.int64)
    if estimates.dim() < 2:
        raise ValueError(f"reorder: estimates is {_check.shape(estimates)}, expected [B,S,*].")
    _check.has_shape("reorder", "permutation", permutation, estimates.shape[:2], "[B,S]")
    _check.same_device("reorder", estimates=estimates, permutation=permutation)
    if use_native("reorder", backend, estimates):
        return torch.ops.task_aware.reorder(estimates, permutation)
    return reorder_reference(estimates, permutation)


def _fake(rows: Tensor, permutation: Tensor) -> Tensor:
    return torch.empty_like(rows, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (permutation,) = ctx.saved_tensors
    return torch.ops.task_aware.reorder_backward(grad, permutation), None


def _second(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (permutation,) = ctx.saved_tensors
    return torch.ops.task_aware.reorder(grad, permutation), None


if has_kernels():
    torch.library.register_fake("task_aware::reorder", _fake)
    torch.library.register_fake("task_aware::reorder_backward", _fake)
    register_autograd("reorder", _backward, setup_context=_setup_context)
    register_autograd("reorder_backward", _second, setup_context=_setup_context)
