"""The assignment of estimates to targets with the least total cost, in PyTorch and Python."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ._dispatch import constant_in_graphs
from ._tables import kept

#: Up to this many sources, all permutations are tried on the device; beyond, it is solved on the host.
EXHAUSTIVE_UP_TO = 6

#: The integer cost of a pair that is not allowed: more than any sum of 32 infinite ones (2^53), and six fit int64.
FORBIDDEN = 2**59


def assign(costs: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Finds the lexicographically first of the assignments of least total cost.

    Args:
        costs: ``[B,S,S]`` float64, of target and estimate, without NaN.
        allowed: ``[B,S,S]`` bool, the pairs that may be chosen; default: all. Others have no effect, but are chosen
            where there is no assignment without them.

    Returns:
        ``[B,S]`` int64: the estimate of each target.
    """
    if allowed is None:
        whole = _to_integers(costs)
    else:
        whole = _to_integers(costs.where(allowed, 0.0)).masked_fill(~allowed, FORBIDDEN)
    permutation = _exhaustive(whole) if costs.shape[1] <= EXHAUSTIVE_UP_TO else _augmenting_paths(whole)
    return permutation.to(costs.device)


def _to_integers(costs: Tensor) -> Tensor:
    """Converts costs to integers of at most 2^47 (2^53 for infinity), so that totals are exact and ties are found."""
    infinite = costs.isinf()
    largest = costs.masked_fill(infinite, 0.0).abs().flatten(1).amax(1) if costs.numel() else costs.new_zeros(0)
    largest = largest.clamp_min(torch.finfo(torch.float64).tiny)
    unit = torch.frexp(largest).mantissa / largest  # a power of two; torch 2.14 cannot compile the exponent of float64
    scaled = costs * unit[:, None, None] * 2**47
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
