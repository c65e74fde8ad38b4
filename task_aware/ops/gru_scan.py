"""The recurrence of gated recurrent units in both directions, given the input's contribution to their gates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import _check
from ._dispatch import Backend, has_kernels, outside_autocast, refuse_second_derivatives, register_autograd, use_native


@outside_autocast
def gru_scan_reference(gates: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Pure PyTorch definition of :func:`gru_scan`."""
    compute = torch.promote_types(gates.dtype, torch.float32)
    B, T, D, _ = gates.shape
    H = weight.shape[2]
    directions = []
    for d in range(D):
        h = gates.new_zeros((B, H), dtype=compute)
        states = [h] * T
        for t in range(T) if d == 0 else reversed(range(T)):
            of_input = gates[:, t, d].to(compute)
            of_state = nn.functional.linear(h, weight[d].to(compute), bias[d].to(compute))
            r, z = torch.sigmoid(of_input + of_state)[:, : 2 * H].chunk(2, 1)
            n = torch.tanh(of_input[:, 2 * H :] + r * of_state[:, 2 * H :])
            h = (1 - z) * n + z * h
            states[t] = h
        directions.append(torch.stack(states, 1) if T else gates[:, :, d, :H].to(compute))
    return torch.stack(directions, 2).to(gates.dtype)


def gru_scan(gates: Tensor, weight: Tensor, bias: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Computes the states of gated recurrent units (Cho et al., 2014, as in ``torch.nn.GRU``), beginning with zeros::

        r, z = sigmoid(gates_r + pre_r), sigmoid(gates_z + pre_z)    pre = h[t-1] @ weight.T + bias
        n = tanh(gates_n + r * pre_n)
        h[t] = (1 - z) * n + z * h[t-1]

    ``gates`` is the contribution of the input, ``x @ weight_ih.T + bias_ih``, of all frames at once. Only the states
    are stored for the backward, which recomputes the gates.

    Args:
        gates: ``[B,T,D,3H]`` in the order r, z, n, float32, float64 or bfloat16 (summed in float32); with D = 2
            directions, the second runs from the last frame to the first.
        weight: ``[D,3H,H]``, floating.
        bias: ``[D,3H]``, floating.
        backend: ``auto``, ``native`` or ``reference``.

    Returns:
        ``[B,T,D,H]`` in the dtype of ``gates``.

    Raises:
        TypeError, ValueError: an argument has the wrong type, dtype, shape or device.
        BackendError: the device has no native kernels and the backend is not ``reference``.
    """
    _check.floating("gru_scan", gates=gates, weight=weight, bias=bias)
    if gates.dim() != 4 or gates.shape[2] not in (1, 2) or gates.shape[3] % 3:
        raise ValueError(f"gru_scan: gates is {_check.shape(gates)}, expected [B,T,D,3H] with D 1 or 2.")
    D, H = gates.shape[2], gates.shape[3] // 3
    _check.has_shape("gru_scan", "weight", weight, (D, 3 * H, H), "[D,3H,H]")
    _check.has_shape("gru_scan", "bias", bias, (D, 3 * H), "[D,3H]")
    _check.same_device("gru_scan", gates=gates, weight=weight, bias=bias)
    if not use_native("gru_scan", backend, gates):
        return gru_scan_reference(gates, weight, bias)
    compute = torch.promote_types(gates.dtype, torch.float32)
    return torch.ops.task_aware.gru_scan(gates, weight.to(compute), bias.to(compute))


def gru(x: Tensor, layers: nn.GRU, *, backend: Backend = "auto") -> Tensor:
    """Computes the output of a ``torch.nn.GRU`` with :func:`gru_scan`, beginning with zeros: ``layers(x)[0]``.

    Under ``torch.compile``, set ``torch._dynamo.config.allow_rnn = True``, without which it rejects every ``nn.GRU``.

    Args:
        x: ``[B,T,I]``; ``[T,B,I]`` if ``layers`` is not ``batch_first``; or ``[T,I]``.
        layers: the GRU; one with dropout between its layers must be in evaluation mode.
        backend: backend of the recurrence.

    Returns:
        ``[B,T,D * H]``, or in the order of ``x``.

    Raises:
        TypeError, ValueError: an argument has the wrong type or shape, or the GRU would apply dropout.
        BackendError: the device has no native kernels and the backend is not ``reference``.
    """
    _check.floating("gru", x=x)
    if not isinstance(layers, nn.GRU):
        raise TypeError(f"gru: layers is {type(layers).__name__}, expected a torch.nn.GRU.")
    letters = "[B,T,I]" if layers.batch_first else "[T,B,I]"
    if x.dim() not in (2, 3) or x.shape[-1] != layers.input_size:
        raise ValueError(f"gru: x is {_check.shape(x)}, expected {letters} or [T,I] with I = {layers.input_size}.")
    if layers.training and layers.dropout and layers.num_layers > 1:
        raise ValueError(
            f"gru: layers is in training mode with a dropout of {layers.dropout}, which is not applied here; call "
            "layers.eval(), or the module itself."
        )
    suffixes = ["", "_reverse"] if layers.bidirectional else [""]

    def parameters(name: str) -> list[Tensor]:
        return [getattr(layers, f"{name}{suffix}") for suffix in suffixes]

    time_first = x.dim() == 3 and not layers.batch_first
    y = x.transpose(0, 1) if time_first else x.unsqueeze(0) if x.dim() == 2 else x
    for layer in range(layers.num_layers):
        weight = torch.stack(parameters(f"weight_hh_l{layer}"))
        if layers.bias:
            bias_ih, bias = torch.cat(parameters(f"bias_ih_l{layer}")), torch.stack(parameters(f"bias_hh_l{layer}"))
        else:
            bias_ih, bias = None, weight.new_zeros(weight.shape[:2])
        gates = nn.functional.linear(y, torch.cat(parameters(f"weight_ih_l{layer}")), bias_ih)
        y = gru_scan(gates.unflatten(2, (len(suffixes), -1)), weight, bias, backend=backend).flatten(2)
    return y.transpose(0, 1) if time_first else y.squeeze(0) if x.dim() == 2 else y


def _fake(gates: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return gates.new_empty((*gates.shape[:3], weight.shape[2]))


def _fake_backward(grad: Tensor, h: Tensor, gates: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(gates, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(output, *inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    h, gates, weight, bias = ctx.saved_tensors
    grad_gates = torch.ops.task_aware.gru_scan_backward(grad, h, gates, weight, bias)
    grad_weight = grad_bias = None
    if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
        # A frozen detector never comes here.
        H = weight.shape[2]
        before = torch.zeros_like(h, dtype=weight.dtype)
        before[:, 1:, 0] = h[:, :-1, 0]
        before[:, :-1, 1:] = h[:, 1:, 1:]
        pre_r = torch.einsum("btdk,djk->btdj", before, weight[:, :H]) + bias[:, :H]
        through = grad_gates.to(weight.dtype, copy=True)
        through[..., 2 * H :] *= torch.sigmoid(gates[..., :H] + pre_r)
        grad_weight = torch.einsum("btdj,btdk->djk", through, before)
        grad_bias = through.sum((0, 1))
    return grad_gates, grad_weight, grad_bias


if has_kernels():
    torch.library.register_fake("task_aware::gru_scan", _fake)
    torch.library.register_fake("task_aware::gru_scan_backward", _fake_backward)
    register_autograd("gru_scan", _backward, setup_context=_setup_context)
    refuse_second_derivatives("gru_scan")
