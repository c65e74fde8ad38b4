"""Permutation-invariant loss between estimates and target sources."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.limits import MAX_SOURCES
from . import _check
from ._dispatch import (
    Backend,
    constant_in_graphs,
    has_kernels,
    outside_autocast,
    refuse_second_derivatives,
    register_autograd,
    use_native,
)
from ._tables import kept
from .reorder import reorder_reference

KINDS = ("mse", "l1", "bce")
#: Up to this many sources, the reference tries all permutations on the device; beyond, it solves on the host.
EXHAUSTIVE_UP_TO = 6


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
    kind: Literal["mse", "l1", "bce"] = "mse",
    mask: Tensor | None = None,
    backend: Backend = "auto",
) -> PITResult:
    """Computes the smallest loss over all assignments of estimates to targets (utterance-level PIT, the paper's Eq. 2).

    ``loss[b] = min over permutations p of mean over existing targets j and elements n of
    d(estimates[b,p(j),n], targets[b,j,n])``, where d is the squared error (``mse``), the absolute error (``l1``)
    or the binary cross-entropy of probabilities with logarithms clamped at -100 (``bce``). Exact for S up to 32.

    The gradient is that of the chosen pairs; none flows through the choice. Ties go to the lexicographically first
    permutation; totals are compared with a resolution of ``2**-47`` of the item's largest pair cost. To weight elements
    by w, multiply both arguments by ``sqrt(w)`` for ``mse``, or by w for ``l1``.

    Args:
        estimates, targets: ``[B,S,*]``, float32, float64 or bfloat16; the wider dtype of the two is used.
        kind: ``mse``, ``l1`` or ``bce``.
        mask: ``[B,S]`` bool, the targets that exist; default: all. The others cost nothing and have no effect; the
            remaining estimates are assigned to them in ascending order. An item without targets has loss 0 and
            gradient 0.
        backend: ``auto``, ``native`` or ``reference``.

    Returns:
        :class:`PITResult`. An item with a NaN among its pair costs has a loss and gradient of NaN and the identity as
        permutation. An infinite pair cost outweighs all finite ones: the permutation with the fewest of them is chosen.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape or device.
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
    _check.same_device("pit_loss", estimates=estimates, targets=targets)
    dtype = torch.promote_types(estimates.dtype, targets.dtype)
    estimates, targets = estimates.to(dtype), targets.to(dtype)
    if use_native("pit_loss", backend, estimates):
        return PITResult(*torch.ops.task_aware.pit_loss(estimates, targets, mask, KINDS.index(kind)))
    return pit_loss_reference(estimates, targets, kind=kind, mask=mask)


@outside_autocast
def pit_loss_reference(
    estimates: Tensor,
    targets: Tensor,
    *,
    kind: Literal["mse", "l1", "bce"] = "mse",
    mask: Tensor | None = None,
) -> PITResult:
    """Pure PyTorch definition of :func:`pit_loss`; beyond six sources the assignment is found on the host."""
    compute = torch.promote_types(torch.promote_types(estimates.dtype, targets.dtype), torch.float32)
    estimates, targets = (x.unsqueeze(-1).flatten(2).to(compute) for x in (estimates, targets))
    if mask is None:
        mask = torch.ones(estimates.shape[:2], dtype=torch.bool, device=estimates.device)
    with torch.no_grad():
        pairs = [_cost(estimates[:, i : i + 1], targets, kind) for i in range(estimates.shape[1])]
        costs = torch.stack(pairs, dim=2).masked_fill(~mask[:, :, None], 0.0)  # [B, target, estimate]
        broken = costs.isnan().flatten(1).any(1)
        whole = _to_integers(costs.masked_fill(broken[:, None, None], 0.0))
        permutation = _exhaustive(whole) if estimates.shape[1] <= EXHAUSTIVE_UP_TO else _augmenting_paths(whole)
        permutation = permutation.to(estimates.device)
    exists = mask[:, :, None]
    chosen = _cost(reorder_reference(estimates, permutation).where(exists, 0.0), targets.where(exists, 0.0), kind)
    loss = chosen.sum(1) / (mask.sum(1).clamp(min=1) * estimates.shape[2])
    loss = loss * torch.where(broken, math.nan, 1.0)
    return PITResult(loss.to(compute), permutation)


def _cost(estimates: Tensor, targets: Tensor, kind: str) -> Tensor:
    """``[B,S,N]`` to ``[B,S]``: the sum of d over elements, accumulated in float64."""
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


def _to_integers(costs: Tensor) -> Tensor:
    """Converts costs to integers of at most 2^47 (2^53 for infinity), so that totals are exact and ties are found."""
    infinite = costs.isinf()
    largest = costs.masked_fill(infinite, 0.0).abs().flatten(1).amax(1) if costs.numel() else costs.new_zeros(0)
    scaled = torch.ldexp(costs, (47 - torch.frexp(largest).exponent)[:, None, None])
    return torch.where(infinite, costs.sign() * 2**53, scaled.round()).to(torch.int64)


@constant_in_graphs
@kept
def _permutations(S: int, device: torch.device) -> Tensor:
    """All permutations of S, ``[S!,S]``, made once: nothing may be copied from the host during CUDA graph capture."""
    return torch.tensor(list(itertools.permutations(range(S))), device=device)


def _exhaustive(costs: Tensor) -> Tensor:
    """Finds the first of the best permutations; itertools lists them in lexicographic order."""
    S = costs.shape[1]
    permutations = _permutations(S, costs.device)
    totals = costs[:, torch.arange(S, device=costs.device), permutations].sum(-1)
    return permutations[totals.argmin(1)]


def _augmenting_paths(costs: Tensor) -> Tensor:
    """Runs the Hungarian method on exact integers that also encode each pair's share of the lexicographic rank."""
    S = costs.shape[1]
    rank = [[i * S ** (S - 1 - j) for i in range(S)] for j in range(S)]
    rows = [[[c * S**S + r for c, r in zip(*row, strict=True)] for row in zip(item, rank, strict=True)]
            for item in costs.tolist()]  # fmt: skip
    return torch.tensor([_hungarian(item) for item in rows], dtype=torch.int64).reshape(-1, S)


def _hungarian(costs: Sequence[Sequence[int]]) -> list[int]:
    """Finds the column of each row in the assignment of least total cost (Kuhn and Munkres, by shortest paths)."""
    S = len(costs)
    far = 1 + 2 * S * max(abs(cost) for row in costs for cost in row)
    row_dual, column_dual, owner = [0] * (S + 1), [0] * (S + 1), [S] * (S + 1)
    for row in range(S):
        owner[S], column = row, S
        distance, previous, done = [far] * S, [S] * S, [False] * (S + 1)
        while owner[column] != S:
            done[column], current = True, owner[column]
            for k in (k for k in range(S) if not done[k]):
                through = costs[current][k] - row_dual[current] - column_dual[k]
                if through < distance[k]:
                    distance[k], previous[k] = through, column
            nearest = min((k for k in range(S) if not done[k]), key=distance.__getitem__)
            step = distance[nearest]
            for k in range(S + 1):
                if done[k]:
                    row_dual[owner[k]] += step
                    column_dual[k] -= step
                elif k < S:
                    distance[k] -= step
            column = nearest
        while column != S:
            owner[column] = owner[previous[column]]
            column = previous[column]
        owner[S] = S
    return [owner.index(row) for row in range(S)]


def _fake(estimates: Tensor, targets: Tensor, mask: Tensor | None, kind: int) -> tuple[Tensor, Tensor]:
    loss = estimates.new_empty(estimates.shape[0], dtype=torch.promote_types(estimates.dtype, torch.float32))
    return loss, estimates.new_empty(estimates.shape[:2], dtype=torch.int64)


def _fake_backward(
    grad: Tensor,
    loss: Tensor,
    estimates: Tensor,
    targets: Tensor,
    permutation: Tensor,
    mask: Tensor | None,
    kind: int,
    wants_estimates: bool,
    wants_targets: bool,
) -> tuple[Tensor, Tensor]:
    return (
        estimates.new_empty(estimates.shape if wants_estimates else 0),
        targets.new_empty(targets.shape if wants_targets else 0),
    )


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, int], output: tuple[Tensor, Tensor]) -> None:
    estimates, targets, mask, kind = inputs
    loss, permutation = output
    ctx.mark_non_differentiable(permutation)
    ctx.save_for_backward(loss, estimates, targets, permutation, mask)
    ctx.kind = kind


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, Tensor | None, None, None]:
    wants_estimates, wants_targets = ctx.needs_input_grad[:2]
    grads = torch.ops.task_aware.pit_loss_backward(grad, *ctx.saved_tensors, ctx.kind, wants_estimates, wants_targets)
    return grads[0] if wants_estimates else None, grads[1] if wants_targets else None, None, None


if has_kernels():
    torch.library.register_fake("task_aware::pit_loss", _fake)
    torch.library.register_fake("task_aware::pit_loss_backward", _fake_backward)
    register_autograd("pit_loss", _backward, setup_context=_setup_context)
    refuse_second_derivatives("pit_loss")
