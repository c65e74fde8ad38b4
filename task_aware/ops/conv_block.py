"""A block of the mask network, fused: 1x1 convolution, PReLU, norm, depthwise convolution, PReLU, norm, two outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..base.errors import BackendError
from . import _check
from ._dispatch import Backend, has_kernels, outside_autocast, refuse_second_derivatives, register_autograd, use_native
from .depthwise_prelu import depthwise_prelu_reference

#: Channels of the kernel's tensors are padded to a multiple of this.
PANEL = 16


@outside_autocast
def conv_block_reference(
    x: Tensor,
    total: Tensor,
    expand: Tensor,
    bias1: Tensor,
    slope1: Tensor,
    gain1: Tensor,
    shift1: Tensor,
    depth: Tensor,
    depth_bias: Tensor,
    slope2: Tensor,
    gain2: Tensor,
    shift2: Tensor,
    residual: Tensor,
    bias_out: Tensor,
    skip: Tensor,
    bias_skip: Tensor,
    dilation: int,
    eps: float = 1e-8,
) -> tuple[Tensor, Tensor]:
    """Pure PyTorch definition of :func:`conv_block`."""
    compute = torch.promote_types(x.dtype, torch.float32)

    def product(weight: Tensor, bias: Tensor, of: Tensor) -> Tensor:
        return weight.to(compute) @ of + bias.to(compute)[:, None]

    def norm(of: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        centred = of - of.mean((1, 2), keepdim=True)
        standard = centred * (centred.square().mean((1, 2), keepdim=True) + eps).rsqrt()
        return standard * gain.to(compute)[:, None] + shift.to(compute)[:, None]

    u = product(expand, bias1, x.to(compute))
    n1 = norm(torch.where(u > 0, u, slope1.to(compute) * u), gain1, shift1)
    n2 = norm(depthwise_prelu_reference(n1, depth, depth_bias, slope2, dilation), gain2, shift2)
    out = x.to(compute) + product(residual, bias_out, n2)
    return out.to(x.dtype), (total.to(compute) + product(skip, bias_skip, n2)).to(x.dtype)


def conv_block(
    x: Tensor,
    total: Tensor,
    expand: Tensor,
    bias1: Tensor,
    slope1: Tensor,
    gain1: Tensor,
    shift1: Tensor,
    depth: Tensor,
    depth_bias: Tensor,
    slope2: Tensor,
    gain2: Tensor,
    shift2: Tensor,
    residual: Tensor,
    bias_out: Tensor,
    skip: Tensor,
    bias_skip: Tensor,
    dilation: int,
    eps: float = 1e-8,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Computes a block of Conv-TasNet (Luo and Mesgarani, 2019)::

        n1 = norm(prelu(expand x + bias1, slope1)) * gain1 + shift1
        n2 = norm(depthwise_prelu(n1, depth, depth_bias, slope2, dilation)) * gain2 + shift2
        out = x + residual n2 + bias_out
        new_total = total + skip n2 + bias_skip

    where ``norm`` gives each item zero mean and unit variance over channels and time. The backward needs x and the
    first product alone, and computes the rest again. CPU only.

    Args:
        x: ``[B,C,T]``, float32, float64 or bfloat16 (whose products have bfloat16 factors and are summed in float32).
            No copy is needed where the channels of a frame lie together, as in the outputs.
        total: sum of the skip outputs of earlier blocks, ``[B,S,T]``.
        expand: ``[H,C]``, floating, as all that follow.
        bias1, gain1, shift1, depth_bias, gain2, shift2: ``[H]``.
        slope1, slope2: ``[1]``.
        depth: ``[H,3]``.
        residual, bias_out: ``[C,H]`` and ``[C]``.
        skip, bias_skip: ``[S,H]`` and ``[S]``.
        dilation: distance between the three frames of the depthwise convolution, at least 1.
        eps: added to variances.
        backend: ``auto``, ``native`` or ``reference``.

    Returns:
        ``out`` ``[B,C,T]`` and ``new_total`` ``[B,S,T]`` in x's dtype.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape or device.
        BackendError: the tensors are not on the CPU and the backend is not ``reference``.
    """
    names: tuple[str, ...]
    names = ("expand", "bias1", "slope1", "gain1", "shift1", "depth", "depth_bias", "slope2", "gain2", "shift2")
    hidden = (expand, bias1, slope1, gain1, shift1, depth, depth_bias, slope2, gain2, shift2)
    outputs = (residual, bias_out, skip, bias_skip)
    names += ("residual", "bias_out", "skip", "bias_skip")
    weights = dict(zip(names, (*hidden, *outputs), strict=True))
    tensors = {"x": x, "total": total} | weights
    _check.floating("conv_block", **tensors)
    if x.dim() != 3:
        raise ValueError(f"conv_block: x is {_check.shape(x)}, expected [B,C,T].")
    if total.dim() != 3 or total.shape[::2] != x.shape[::2]:
        raise ValueError(
            f"conv_block: total is {_check.shape(total)}, expected [B,S,T] with the B and T of x, {_check.shape(x)}."
        )
    B, C, T = x.shape
    H, S = expand.shape[0] if expand.dim() else 0, total.shape[1]
    sizes: dict[str, tuple[tuple[int, ...], str]]
    sizes = {"expand": ((H, C), "[H,C]"), "depth": ((H, 3), "[H,3]"), "residual": ((C, H), "[C,H]")}
    sizes |= {"skip": ((S, H), "[S,H]"), "bias_out": ((C,), "[C]"), "bias_skip": ((S,), "[S]")}
    sizes |= {"slope1": ((1,), "[1]"), "slope2": ((1,), "[1]")}
    for name, weight in weights.items():
        _check.has_shape("conv_block", name, weight, *sizes.get(name, ((H,), "[H]")))
    if 0 in (H, C, S):
        raise ValueError(f"conv_block: C, H and S are {C}, {H} and {S}, expected at least 1.")
    if dilation < 1:
        raise ValueError(f"conv_block: dilation is {dilation}, expected at least 1.")
    _check.same_device("conv_block", **tensors)
    if backend != "reference" and x.device.type == "cuda":
        raise BackendError("conv_block has no CUDA kernels; use its layers, or backend='reference'.")
    if not use_native("conv_block", backend, x):
        return conv_block_reference(x, total, *hidden, *outputs, dilation=dilation, eps=eps)
    compute = torch.promote_types(x.dtype, torch.float32)
    of_sums = [weight.to(compute) for weight in weights.values()]
    out, new_total, *_ = torch.ops.task_aware.conv_block(x, total.to(x.dtype), *of_sums, dilation, eps)
    return out, new_total


def _like(x: Tensor) -> Tensor:
    B, C, T = x.shape
    return x.new_empty((B, T, C)).transpose(1, 2)


def _panels(channels: Any) -> Any:
    return (channels + PANEL - 1) // PANEL * PANEL


def _fake(x: Tensor, total: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    u = x.new_empty((x.shape[0], x.shape[2], _panels(others[0].shape[0])))
    return _like(x), _like(total), u, others[1].new_empty((x.shape[0], 4))


def _fake_backward(
    grad_out: Tensor | None, grad_total: Tensor | None, x: Tensor, u: Tensor, norms: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    expand, skip = others[0], others[12]
    (H, C), S = expand.shape, skip.shape[0]
    width = torch.sym_max(_panels(H), _panels(C) + _panels(S))
    return _like(x), expand.new_empty((H, C)), expand.new_empty((C + S, H)), expand.new_empty((12, width))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, _, *weights = inputs[:16]
    ctx.save_for_backward(x, output[2], output[3], *weights)
    ctx.dilation = inputs[16]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_out: Tensor | None, grad_total: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    x, u, norms, *weights = ctx.saved_tensors
    grad_x, expand, both, sums = torch.ops.task_aware.conv_block_backward(
        grad_out, grad_total, x, u, norms, *weights, ctx.dilation
    )
    (H, C), S = weights[0].shape, len(weights[12])
    bias_out, bias_skip = sums[0, :C], sums[0, _panels(C) : _panels(C) + S]
    gain2, shift2, depth_bias, _, before, here, after, gain1, shift1, bias1, _ = sums[1:, :H].unbind()
    depth = torch.stack([before, here, after], 1)
    slope1, slope2 = sums[11, :1], sums[4, :1]
    residual, skip = both[:C], both[C:]
    hidden = expand, bias1, slope1, gain1, shift1, depth, depth_bias, slope2, gain2, shift2
    return grad_x, grad_total, *hidden, residual, bias_out, skip, bias_skip, None, None


if has_kernels():
    torch.library.register_fake("task_aware::conv_block", _fake)
    torch.library.register_fake("task_aware::conv_block_backward", _fake_backward)
    register_autograd("conv_block", _backward, setup_context=_setup_context)
    refuse_second_derivatives("conv_block")
