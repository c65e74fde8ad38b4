"""Permutation-invariant loss between estimates and target sources."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.limits import MAX_SOURCES
from . import _check
from ._assignment import assign
from ._dispatch import Backend, has_kernels, outside_autocast, refuse_second_derivatives, register_autograd, use_native
from .reorder import reorder_reference

Kind = Literal["mse", "l1", "bce", "snr", "si_sdr"]
KINDS = ("mse", "l1", "bce", "snr", "si_sdr")
#: Kinds whose cost is a ratio in dB of a pair's energies, not a mean over elements.
RATIOS = ("snr", "si_sdr")
#: Added to every energy of a ratio, so that silence has finite ones: float32's epsilon, as torchmetrics has it.
ENERGY_FLOOR = 2.0**-23


class PITResult(NamedTuple):
    """The result of :func:`pit_loss`."""

    loss: Tensor
    """``[B]``, float64 for float64 inputs, otherwise float32."""
    permutation: Tensor
    """``[B,S]`` int64: ``permutation[b,j]`` is the estimate that matches target j."""


def pit_loss(
    estimates: Tensor,
    targets: Tensor,
    *,
    kind: Kind = "mse",
    mask: Tensor | None = None,
    classes: Tensor | None = None,
    allowed: Tensor | None = None,
    backend: Backend = "auto",
) -> PITResult:
    """Computes the smallest loss over all assignments of estimates to targets (utterance-level PIT, the paper's Eq. 2).

    ``loss[b] = min over permutations p of mean over existing targets j and elements n of
    d(estimates[b,p(j),n], targets[b,j,n])``, where d is the squared error (``mse``), the absolute error (``l1``)
    or the binary cross-entropy of probabilities with logarithms clamped at -100 (``bce``). Exact for S up to 32.

    The kinds ``snr`` and ``si_sdr`` are for waveforms. ``loss[b]`` is then the mean over existing targets of the
    negative ratio in dB, ``10 log10((|e-at|^2 + f) / (|at|^2 + f))`` of a pair e, t with energies
    ``|x|^2 = sum_n x[n]^2``. For ``snr`` a = 1. For ``si_sdr`` ``a = <e,t> / (|t|^2 + f)``, and no mean is subtracted.
    The floor ``f = 2**-23``, the same in all dtypes, keeps losses and gradients of finite waveforms finite: a target of
    silence costs 0 where the estimate is silent too, and the more, the louder the estimate.

    With ``classes`` a target is paired only with estimates of its class (class-aware PIT), with ``allowed`` only with
    those that it names. Other pairs have no effect, NaN in them included.

    The gradient is that of the chosen pairs; none flows through the choice. Ties go to the lexicographically first
    permutation; totals are compared with a resolution of ``2**-47`` of the item's largest pair cost. To weight elements
    by w, multiply both arguments by ``sqrt(w)`` for ``mse``, or by w for ``l1``.

    Args:
        estimates, targets: ``[B,S,*]``, float32, float64 or bfloat16; the wider dtype of the two is used.
        kind: ``mse``, ``l1``, ``bce``, ``snr`` or ``si_sdr``.
        mask: ``[B,S]`` bool, the targets that exist; default: all. The others cost nothing and have no effect; the
            remaining estimates are assigned to them in ascending order. An item without targets has loss 0 and
            gradient 0.
        classes: ``[B,S]`` int64, the class of row s of both estimates and targets; negative: nothing is there, as with
            ``mask``, which may be given too.
        allowed: ``[B,S,S]`` bool, the general form: which estimates (last dimension) each existing target may have. Not
            together with ``classes``. What it says of targets that do not exist has no effect. An item for which it
            permits no assignment is an error on the CPU. On a GPU, which does not wait for the host, its loss and
            gradient are NaN and its permutation the identity.
        backend: ``auto``, ``native`` or ``reference``.

    Returns:
        :class:`PITResult`. An item with a NaN among its pair costs has a loss and gradient of NaN and the identity as
        permutation. An infinite pair cost outweighs all finite ones: the permutation with the fewest of them is chosen.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape or device.
        RuntimeError: on the CPU, ``allowed`` permits no assignment for an item.
        BackendError: the device has no native kernels.
    """
    _check.floating("pit_loss", estimates=estimates, targets=targets)
    if estimates.dim() < 2:
        raise ValueError(f"pit_loss: estimates is {_check.shape(estimates)}, expected [B,S,*].")
    _check.has_shape("pit_loss", "targets", targets, tuple(estimates.shape), "the estimates' shape")
    if not 1 <= estimates.shape[1] <= MAX_SOURCES:
        raise ValueError(f"pit_loss: estimates is {_check.shape(estimates)}, expected S from 1 to {MAX_SOURCES}.")
    if estimates.shape[0] > 0 and estimates.numel() == 0:
        raise ValueError(f"pit_loss: estimates is {_check.shape(estimates)}, expected at least one element per source.")
    if kind not in KINDS:
        raise ValueError(f"pit_loss: kind is {kind!r}, expected one of {', '.join(KINDS)}.")
    if mask is not None:
        _check.dtype("pit_loss", "mask", mask, torch.bool)
        _check.has_shape("pit_loss", "mask", mask, tuple(estimates.shape[:2]), "[B,S]")
        _check.same_device("pit_loss", estimates=estimates, targets=targets, mask=mask)
    if classes is not None:
        if allowed is not None:
            raise ValueError("pit_loss: both classes and allowed are given, expected one of them.")
        _check.dtype("pit_loss", "classes", classes, torch.int64)
        _check.has_shape("pit_loss", "classes", classes, tuple(estimates.shape[:2]), "[B,S]")
        _check.same_device("pit_loss", estimates=estimates, targets=targets, classes=classes)
    if allowed is not None:
        _check.dtype("pit_loss", "allowed", allowed, torch.bool)
        sizes = (*estimates.shape[:2], estimates.shape[1])
        _check.has_shape("pit_loss", "allowed", allowed, sizes, "[B,S,S]")
        _check.same_device("pit_loss", estimates=estimates, targets=targets, allowed=allowed)
    _check.same_device("pit_loss", estimates=estimates, targets=targets)
    dtype = torch.promote_types(estimates.dtype, targets.dtype)
    estimates, targets = estimates.to(dtype), targets.to(dtype)
    if use_native("pit_loss", backend, estimates):
        mask, allowed = _restrictions(mask, classes, allowed)
        loss, permutation, _ = torch.ops.task_aware.pit_loss(estimates, targets, mask, allowed, KINDS.index(kind))
        return PITResult(loss, permutation)
    return pit_loss_reference(estimates, targets, kind=kind, mask=mask, classes=classes, allowed=allowed)


def _restrictions(
    mask: Tensor | None, classes: Tensor | None, allowed: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """``mask`` and ``allowed``, what ``classes`` says included."""
    if classes is None:
        return mask, allowed
    there = classes >= 0
    return there if mask is None else there & mask, classes[:, :, None] == classes[:, None, :]


@outside_autocast
def pit_loss_reference(
    estimates: Tensor,
    targets: Tensor,
    *,
    kind: Kind = "mse",
    mask: Tensor | None = None,
    classes: Tensor | None = None,
    allowed: Tensor | None = None,
) -> PITResult:
    """Pure PyTorch definition of :func:`pit_loss`; beyond six sources the assignment is found on the host.

    Where it is compiled, an item without any allowed assignment is NaN on the CPU too.
    """
    compute = torch.promote_types(torch.promote_types(estimates.dtype, targets.dtype), torch.float32)
    estimates, targets = (x.unsqueeze(-1).flatten(2).to(compute) for x in (estimates, targets))
    B, S, N = estimates.shape
    mask, allowed = _restrictions(mask, classes, allowed)
    if mask is None:
        mask = torch.ones(B, S, dtype=torch.bool, device=estimates.device)
    with torch.no_grad():
        pairs = [_cost(estimates[:, i : i + 1], targets, kind) for i in range(S)]
        costs = torch.stack(pairs, dim=2).masked_fill(~mask[:, :, None], 0.0)  # [B, target, estimate]
        if allowed is None:
            broken = costs.isnan().flatten(1).any(1)
            permutation = assign(costs.masked_fill(broken[:, None, None], 0.0))
        else:
            free = allowed | ~mask[:, :, None]
            broken = (costs.isnan() & free).flatten(1).any(1)
            permutation = assign(costs.masked_fill(broken[:, None, None], 0.0), free)
            impossible = ~free.gather(2, permutation[:, :, None]).flatten(1).all(1)
            if estimates.device.type == "cpu" and not torch.compiler.is_compiling():
                _refuse(impossible & ~broken)
            broken = broken | impossible
            permutation = torch.where(broken[:, None], torch.arange(S, device=permutation.device), permutation)
    exists = mask[:, :, None]
    chosen = _cost(reorder_reference(estimates, permutation).where(exists, 0.0), targets.where(exists, 0.0), kind)
    loss = chosen.sum(1) / (mask.sum(1).clamp(min=1) * (1 if kind in RATIOS else N))
    loss = loss * torch.where(broken, math.nan, 1.0)
    return PITResult(loss.to(compute), permutation)


def _refuse(impossible: Tensor) -> None:
    """Raises the kernels' error if an item ``[B]`` has no allowed assignment."""
    if impossible.any():
        raise RuntimeError(
            f"pit_loss: allowed permits no assignment for item {int(impossible.nonzero()[0])}, expected for each "
            "existing target an estimate of its own; allow more pairs, or mask targets."
        )


def _cost(estimates: Tensor, targets: Tensor, kind: str) -> Tensor:
    """``[B,S,N]`` to ``[B,S]``: the sum of d over elements, or the ratio in dB, accumulated in float64."""
    if kind in RATIOS:
        signal = targets if kind == "snr" else _scale(estimates, targets) * targets
        energies = [x.square().sum(-1, dtype=torch.float64) + ENERGY_FLOOR for x in (estimates - signal, signal)]
        return 10 * (energies[0].log10() - energies[1].log10()).expand(targets.shape[:2])
    if kind == "mse":
        cost = (estimates - targets).square()
    elif kind == "l1":
        cost = (estimates - targets).abs()
    else:
        probability = (estimates >= 0) & (estimates <= 1)
        safe = estimates.where(probability, 0.5).expand_as(targets)
        slope = (-safe).log1p().clamp(min=-100) - safe.log().clamp(min=-100)  # torch's own is infinite at 0 and 1
        cost = F.binary_cross_entropy(safe, targets.detach(), reduction="none")
        cost = (cost + (targets - targets.detach()) * slope.detach()).where(probability, math.nan)
    return cost.sum(-1, dtype=torch.float64)


def _scale(estimates: Tensor, targets: Tensor) -> Tensor:
    """The multiple of each target, in float64, that is closest to its estimate."""
    energy = targets.square().sum(-1, keepdim=True, dtype=torch.float64)
    return (estimates.double() * targets).sum(-1, keepdim=True) / (energy + ENERGY_FLOOR)


def _fake(
    estimates: Tensor, targets: Tensor, mask: Tensor | None, allowed: Tensor | None, kind: int
) -> tuple[Tensor, Tensor, Tensor]:
    B, S = estimates.shape[:2]
    loss = estimates.new_empty(B, dtype=torch.promote_types(estimates.dtype, torch.float32))
    # What the kernels leave to their backward: the derivatives of a ratio by its pair's energies.
    slopes = estimates.new_empty(B, S if KINDS[kind] in RATIOS else 0, 5, dtype=torch.float64)
    return loss, estimates.new_empty(B, S, dtype=torch.int64), slopes


def _fake_backward(
    grad: Tensor,
    loss: Tensor,
    estimates: Tensor,
    targets: Tensor,
    permutation: Tensor,
    slopes: Tensor,
    mask: Tensor | None,
    kind: int,
    wants_estimates: bool,
    wants_targets: bool,
) -> tuple[Tensor, Tensor]:
    return (
        estimates.new_empty(estimates.shape if wants_estimates else 0),
        targets.new_empty(targets.shape if wants_targets else 0),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    estimates, targets, mask, _, kind = inputs
    loss, permutation, slopes = output
    ctx.mark_non_differentiable(permutation, slopes)
    ctx.save_for_backward(loss, estimates, targets, permutation, slopes, mask)
    ctx.kind = kind


def _backward(ctx: Any, grad: Tensor, *_: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None, None]:
    wants_estimates, wants_targets = ctx.needs_input_grad[:2]
    grads = torch.ops.task_aware.pit_loss_backward(grad, *ctx.saved_tensors, ctx.kind, wants_estimates, wants_targets)
    return grads[0] if wants_estimates else None, grads[1] if wants_targets else None, None, None, None


if has_kernels():
    torch.library.register_fake("task_aware::pit_loss", _fake)
    torch.library.register_fake("task_aware::pit_loss_backward", _fake_backward)
    register_autograd("pit_loss", _backward, setup_context=_setup_context)
    refuse_second_derivatives("pit_loss")
