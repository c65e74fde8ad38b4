"""Which permutation pit_loss chooses: the best, the first of equals; what NaN, infinity and masks do to the choice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from task_aware import ops
from task_aware.ops import _extension

needs_cpu_kernels = pytest.mark.skipif(not _extension.extension.cpu, reason="no CPU kernels")


@pytest.mark.parametrize("kind", ["mse", "l1", "bce"])
def test_reference_is_the_minimum_over_permutations(kind: str) -> None:
    estimates, targets = torch.rand(4, 4, 9, dtype=torch.float64), torch.rand(4, 4, 9, dtype=torch.float64)
    elementwise = {
        "mse": lambda e, t: (e - t) ** 2,
        "l1": lambda e, t: (e - t).abs(),
        "bce": lambda e, t: torch.nn.functional.binary_cross_entropy(e, t, reduction="none"),
    }[kind]
    losses = {p: elementwise(estimates[:, list(p)], targets).mean((1, 2)) for p in itertools.permutations(range(4))}
    table = torch.stack(list(losses.values()))
    result = ops.pit_loss_reference(estimates, targets, kind=kind)
    torch.testing.assert_close(result.loss, table.amin(0))
    assert [tuple(p) for p in result.permutation.tolist()] == [list(losses)[k] for k in table.argmin(0).tolist()]


@needs_cpu_kernels
@settings(deadline=None, max_examples=60)
@given(S=st.integers(1, 32), seed=st.integers(0, 2**32 - 1), digits=st.integers(0, 12))
def test_assignment_is_as_good_as_scipys(S: int, seed: int, digits: int) -> None:
    """Few digits make many ties, among which totals must still agree."""
    rng = np.random.default_rng(seed)
    targets = torch.from_numpy(rng.uniform(0, 3, (1, S, 1)).round(digits))
    estimates = torch.from_numpy(rng.uniform(0, 3, (1, S, 1)).round(digits))
    costs = (targets - estimates.transpose(1, 2)).square()[0].numpy()
    rows, columns = linear_sum_assignment(costs)
    result = ops.pit_loss(estimates, targets)
    assert sorted(result.permutation[0].tolist()) == list(range(S))
    assert float(result.loss) == pytest.approx(costs[rows, columns].sum() / S, rel=1e-12, abs=1e-15)


@needs_cpu_kernels
@settings(deadline=None, max_examples=60)
@given(S=st.integers(1, 32), distinct=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_ties_go_to_the_lexicographically_first(S: int, distinct: int, seed: int) -> None:
    """Sources repeat, so many permutations are equal; the reference settles ties by another algorithm."""
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randn(distinct, 37, generator=generator)
    estimates, targets = (pool[torch.randint(distinct, (1, S), generator=generator)] for _ in range(2))
    mask = torch.rand(1, S, generator=generator) < 0.8
    expected = ops.pit_loss_reference(estimates, targets, mask=mask)
    assert ops.pit_loss(estimates, targets, mask=mask).permutation.tolist() == expected.permutation.tolist()


@pytest.mark.parametrize("S", [2, 5, 6, 9])
def test_all_equal_sources_keep_the_identity(device: str, S: int) -> None:
    estimates = torch.ones(2, S, 600, device=device) * 0.1
    result = ops.pit_loss(estimates, estimates + 0.3)
    assert result.permutation.tolist() == [list(range(S))] * 2


@pytest.mark.parametrize("S", [2, 5, 8])
def test_near_equal_sources_far_from_zero(device: str, S: int) -> None:
    """Mean -40, sources one percent apart: where |a|^2+|b|^2-2ab in float32 picks wrong permutations."""
    generator = torch.Generator().manual_seed(1)
    base = -40 + torch.randn(64, 1, 1500, generator=generator)
    targets = base + 0.01 * torch.randn(64, S, 1500, generator=generator)
    order = torch.stack([torch.randperm(S, generator=generator) for _ in range(64)])
    estimates = ops.reorder_reference(targets, order) + 0.02 * torch.randn(64, S, 1500, generator=generator)
    expected = ops.pit_loss_reference(estimates.double(), targets.double())
    result = ops.pit_loss(estimates.to(device), targets.to(device))
    assert torch.equal(result.permutation.cpu(), expected.permutation)
    torch.testing.assert_close(result.loss.cpu().double(), expected.loss, rtol=1e-6, atol=0)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_nan_item_leaves_the_others_alone(device: str, backend: str) -> None:
    estimates, targets = torch.rand(3, 3, 50, device=device), torch.rand(3, 3, 50, device=device)
    clean = ops.pit_loss(estimates, targets, backend=backend)
    estimates[1, 2, 7] = float("nan")
    estimates.requires_grad_()
    result = ops.pit_loss(estimates, targets, backend=backend)
    result.loss[[0, 2]].sum().backward()
    assert result.loss.isnan().tolist() == [False, True, False]
    assert result.permutation[1].tolist() == [0, 1, 2]
    assert torch.equal(result.loss[::2], clean.loss[::2])
    assert torch.equal(result.permutation[::2], clean.permutation[::2])
    assert estimates.grad[::2].isfinite().all()


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_nan_in_a_target_that_does_not_exist_has_no_effect(device: str, backend: str) -> None:
    estimates, targets = torch.rand(1, 3, 50, device=device), torch.rand(1, 3, 50, device=device)
    mask = torch.tensor([[True, False, True]], device=device)
    clean = ops.pit_loss(estimates, targets, mask=mask, backend=backend)
    targets[0, 1] = float("nan")
    estimates.requires_grad_()
    result = ops.pit_loss(estimates, targets, mask=mask, backend=backend)
    result.loss.sum().backward()
    assert torch.equal(result.loss, clean.loss) and torch.equal(result.permutation, clean.permutation)
    assert estimates.grad.isfinite().all()


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_infinite_costs_are_avoided_first(device: str, backend: str) -> None:
    estimates, targets = torch.zeros(1, 3, 2, device=device), torch.zeros(1, 3, 2, device=device)
    targets[0, :, 0] = torch.tensor([1e3, 2e3, 3e3])
    estimates[0, :, 0] = torch.tensor([float("inf"), 3e3, 1e3])
    result = ops.pit_loss(estimates, targets, backend=backend)
    assert result.loss.tolist() == [float("inf")]
    assert result.permutation.tolist() == [[2, 0, 1]]


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_mask_counts_only_existing_targets(device: str, backend: str) -> None:
    estimates = torch.tensor([5.0, 1.0, 3.0], device=device).reshape(1, 3, 1).repeat(2, 1, 1).requires_grad_()
    targets = torch.tensor([9.0, 3.5, 9.0], device=device).reshape(1, 3, 1).repeat(2, 1, 1)
    mask = torch.tensor([[False, True, False], [False, False, False]], device=device)
    result = ops.pit_loss(estimates, targets, mask=mask, backend=backend)
    assert result.loss.tolist() == [0.25, 0.0]
    assert result.permutation.tolist() == [[0, 2, 1], [0, 1, 2]]
    result.loss.sum().backward()
    assert estimates.grad.flatten().tolist() == [0.0, 0.0, -1.0, 0.0, 0.0, 0.0]
