"""pit_loss with pairs that are not allowed: classes, the general form, and what NaN, ties and infinities do then."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from task_aware import ops

OFFICIAL = Path(__file__).parents[2] / "../shared/metrics/s5/capi_sdri_pit.npz"

each_backend = pytest.mark.parametrize("backend", ["native", "reference"])


def random_classes(*shape: int, classes: int, generator: torch.Generator) -> Tensor:
    """Between -1 (nothing there) and `classes` - 1."""
    return torch.randint(-1, classes, shape, generator=generator)


@each_backend
@pytest.mark.parametrize("kind", ["mse", "snr"])
@pytest.mark.parametrize("S", [1, 2, 4, 5])
def test_the_best_of_all_permutations_within_classes(device: str, S: int, kind: str, backend: str) -> None:
    generator = torch.Generator().manual_seed(S)
    estimates, targets = (torch.rand(12, S, 33, generator=generator, dtype=torch.float64) for _ in range(2))
    classes = random_classes(12, S, classes=2, generator=generator)
    result = ops.pit_loss(
        estimates.to(device), targets.to(device), kind=kind, classes=classes.to(device), backend=backend
    )
    for b, of_rows in enumerate(classes.tolist()):
        there = [s for s in range(S) if of_rows[s] >= 0]
        best, wanted = torch.inf, list(range(S))
        for order in itertools.permutations(range(S)):
            if any(of_rows[j] != of_rows[i] for j, i in enumerate(order)):
                continue
            total = 0.0
            for j in there:
                e, t = estimates[b, order[j]], targets[b, j]
                error, energy = (e - t).square().sum() + 2**-23, t.square().sum() + 2**-23
                total += float((e - t).square().mean() if kind == "mse" else 10 * torch.log10(error / energy))
            if total < best - 1e-12:
                best, wanted = total, list(order)
        assert result.permutation[b].tolist() == wanted
        expected = best / len(there) if there else 0.0
        assert float(result.loss[b]) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("S", [3, 5, 6, 17, 32])
@pytest.mark.parametrize("kind", ["l1", "snr", "si_sdr"])
def test_values_and_gradients_match_the_reference(device: str, S: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(S)
    estimates, targets = (torch.randn(2, S, 40, generator=generator, dtype=torch.float64).to(device) for _ in range(2))
    classes = random_classes(2, S, classes=3, generator=generator).to(device)
    gradients = []
    results = []
    for backend in ("native", "reference"):
        leaves = [x.clone().requires_grad_() for x in (estimates, targets)]
        result = ops.pit_loss(*leaves, kind=kind, classes=classes, backend=backend)
        gradients.append(torch.autograd.grad(result.loss @ torch.tensor([1.0, -2.0]).to(result.loss), leaves))
        results.append(result)
    assert torch.equal(results[0].permutation, results[1].permutation)
    torch.testing.assert_close(results[0].loss, results[1].loss, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)
    nothing = classes < 0
    assert not gradients[0][0][nothing].any() and not gradients[0][1][nothing].any()


@each_backend
@pytest.mark.parametrize("S", [3, 8])
def test_allowed_is_the_general_form(device: str, S: int, backend: str) -> None:
    """Without a restriction nothing changes; a class is a block; a target may also be given just one estimate."""
    generator = torch.Generator().manual_seed(S)
    estimates, targets = (torch.rand(3, S, 20, generator=generator).to(device) for _ in range(2))
    everything = torch.ones(3, S, S, dtype=torch.bool, device=device)
    plain = ops.pit_loss(estimates, targets, backend=backend)
    same = ops.pit_loss(estimates, targets, allowed=everything, backend=backend)
    assert torch.equal(plain.loss, same.loss) and torch.equal(plain.permutation, same.permutation)
    classes = torch.arange(S, device=device).remainder(2).expand(3, S)
    by_class = ops.pit_loss(estimates, targets, classes=classes, backend=backend)
    blocks = ops.pit_loss(estimates, targets, allowed=classes[:, :, None] == classes[:, None], backend=backend)
    assert torch.equal(by_class.loss, blocks.loss) and torch.equal(by_class.permutation, blocks.permutation)
    shifted = torch.eye(S, dtype=torch.bool, device=device).roll(1, 1).expand(3, S, S)
    result = ops.pit_loss(estimates, targets, allowed=shifted, backend=backend)
    assert result.permutation.tolist() == [[*range(1, S), 0]] * 3


@each_backend
@pytest.mark.parametrize("S", [3, 7])
def test_without_any_allowed_assignment(device: str, kernels: str, S: int, backend: str) -> None:
    """Two targets want one estimate: an error on the host, and elsewhere an item of NaN beside sound ones."""
    estimates, targets = torch.rand(3, S, 9, device=device), torch.rand(3, S, 9, device=device)
    allowed = torch.ones(3, S, S, dtype=torch.bool, device=device)
    allowed[1, :2] = False
    allowed[1, :2, 2] = True
    estimates.requires_grad_()
    if kernels == "cpu":
        with pytest.raises(RuntimeError, match="pit_loss: allowed permits no assignment for item 1, expected for each"):
            ops.pit_loss(estimates, targets, allowed=allowed, backend=backend)
    else:
        result = ops.pit_loss(estimates, targets, allowed=allowed, backend=backend)
        assert result.loss.isnan().tolist() == [False, True, False]
        assert result.permutation[1].tolist() == list(range(S))
        result.loss.sum().backward()
        assert estimates.grad.isnan().flatten(1).all(1).tolist() == [False, True, False]
        assert estimates.grad[::2].isfinite().all()
    # What does not exist needs no estimate.
    mask = torch.ones(3, S, dtype=torch.bool, device=device)
    mask[1, 0] = False
    result = ops.pit_loss(estimates, targets, allowed=allowed, mask=mask, backend=backend)
    assert result.loss.isfinite().all() and int(result.permutation[1, 1]) == 2


@each_backend
@pytest.mark.parametrize("kind", ["mse", "snr", "si_sdr"])
def test_a_nan_counts_only_in_allowed_pairs(device: str, kind: str, backend: str) -> None:
    estimates, targets = torch.rand(2, 4, 9, device=device), torch.rand(2, 4, 9, device=device)
    classes = torch.tensor([[0, -1, 0, 1], [0, 0, 0, 1]], device=device)
    clean = ops.pit_loss(estimates, targets, kind=kind, classes=classes, backend=backend)
    estimates[:, 1, 3] = torch.nan
    targets[0, 1] = torch.nan
    estimates.requires_grad_()
    result = ops.pit_loss(estimates, targets, kind=kind, classes=classes, backend=backend)
    assert result.loss.isnan().tolist() == [False, True]
    assert result.permutation[1].tolist() == [0, 1, 2, 3]
    assert torch.equal(result.loss[0], clean.loss[0]) and torch.equal(result.permutation[0], clean.permutation[0])
    result.loss.sum().backward()
    assert estimates.grad[0].isfinite().all() and estimates.grad[1].isnan().all()


@each_backend
@pytest.mark.parametrize("S", [3, 6])
def test_a_pair_that_is_not_allowed_is_worse_than_infinite_ones(device: str, S: int, backend: str) -> None:
    """All allowed permutations have two infinite pairs, the identity one, which is not allowed."""
    estimates, targets = torch.zeros(1, S, 2, device=device), torch.zeros(1, S, 2, device=device)
    estimates[0, 0], targets[0, 0] = torch.inf, -torch.inf
    allowed = torch.ones(1, S, S, dtype=torch.bool, device=device)
    allowed[0, 0, 0] = False
    result = ops.pit_loss(estimates, targets, allowed=allowed, backend=backend)
    assert result.loss.tolist() == [torch.inf]
    assert result.permutation[0, :2].tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(8))
def test_ties_go_to_the_first_of_the_allowed_permutations(device: str, seed: int) -> None:
    """Sources repeat, so that many are equal; the reference settles ties by another algorithm."""
    generator = torch.Generator().manual_seed(seed)
    S = (2, 3, 5, 6, 9, 14, 23, 32)[seed]
    pool = torch.randn(2, 11, generator=generator)
    estimates, targets = (pool[torch.randint(2, (3, S), generator=generator)].to(device) for _ in range(2))
    classes = random_classes(3, S, classes=3, generator=generator).to(device)
    allowed = (torch.rand(3, S, S, generator=generator) < 0.5) | torch.eye(S, dtype=torch.bool).flip(0)
    for restriction in ({"classes": classes}, {"allowed": allowed.to(device)}):
        for kind in ("mse", "snr"):
            expected = ops.pit_loss_reference(estimates, targets, kind=kind, **restriction)
            result = ops.pit_loss(estimates, targets, kind=kind, **restriction)
            assert result.permutation.tolist() == expected.permutation.tolist()


def test_strided_restrictions(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    estimates, targets = (torch.rand(3, 6, 10, generator=generator).to(device) for _ in range(2))
    classes = random_classes(6, 3, classes=2, generator=generator).to(device).T
    allowed = classes[:, None, :] == classes[:, :, None]
    wanted = ops.pit_loss_reference(estimates, targets, classes=classes.contiguous())
    assert torch.equal(ops.pit_loss(estimates, targets, classes=classes).permutation, wanted.permutation)
    result = ops.pit_loss(estimates, targets, allowed=allowed.transpose(1, 2), mask=classes >= 0)
    assert torch.equal(result.permutation, wanted.permutation)


def test_of_an_empty_batch(device: str) -> None:
    nothing = torch.empty(0, 3, 8, device=device)
    classes = torch.empty(0, 3, dtype=torch.int64, device=device)
    for kind in ("mse", "snr"):
        result = ops.pit_loss(nothing, nothing, kind=kind, classes=classes)
        assert result.loss.shape == (0,) and result.permutation.shape == (0, 3)


def test_compiles_into_one_graph(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    estimates, targets = (torch.randn(2, 4, 64, generator=generator).to(device) for _ in range(2))
    classes = torch.tensor([[0, 1, 0, -1], [2, 2, 2, 2]], device=device)

    def step(e: Tensor) -> Tensor:
        return ops.pit_loss(e, targets, kind="snr", classes=classes).loss.sum()

    found = []
    calls: list[Callable[[Tensor], Tensor]] = [step, torch.compile(step, fullgraph=True, backend="aot_eager")]
    for call in calls:
        leaf = estimates.clone().requires_grad_()
        loss = call(leaf)
        found.append((loss.detach(), *torch.autograd.grad(loss, leaf)))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_is_captured_in_a_cuda_graph_without_synchronising() -> None:
    estimates, targets = torch.randn(4, 4, 5000, device="cuda", requires_grad=True), torch.randn(4, 4, 5000).cuda()
    classes = torch.randint(-1, 2, (4, 4), device="cuda")

    def step() -> tuple[Tensor, Tensor]:
        loss = ops.pit_loss(estimates, targets, kind="snr", classes=classes).loss
        return loss, *torch.autograd.grad(loss.sum(), estimates)

    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    classes.copy_(torch.randint(-1, 2, (4, 4)))
    graph.replay()
    for replayed, eager in zip(captured, step(), strict=True):
        assert torch.equal(replayed, eager)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"classes": torch.zeros(2, 3)}, TypeError, "classes is torch.float32, expected torch.int64"),
        ({"classes": torch.zeros(2, 4).long()}, ValueError, r"classes is \[2,4\], expected \[B,S\] = \[2,3\]"),
        ({"allowed": torch.ones(2, 3).bool()}, ValueError, r"allowed is \[2,3\], expected \[B,S,S\] = \[2,3,3\]"),
        ({"allowed": torch.ones(2, 3, 3)}, TypeError, "allowed is torch.float32, expected torch.bool"),
        (
            {"classes": torch.zeros(2, 3).long(), "allowed": torch.ones(2, 3, 3).bool()},
            ValueError,
            "both classes and allowed are given, expected one of them",
        ),
        ({"classes": torch.zeros(2, 3, device="meta").long()}, ValueError, "expected one device"),
    ],
)
def test_wrong_restrictions(change: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.pit_loss(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), backend="reference", **change)


@each_backend
def test_the_search_of_the_challenge_gives_the_same(device: str, backend: str) -> None:
    """Its loss is a mean over all rows, in which rows without a source count 0."""
    if not OFFICIAL.is_file():
        pytest.skip(f"no cases of the challenge's search in {OFFICIAL}")
    with np.load(OFFICIAL) as cases:
        estimates, targets, classes, loss, permutation = (
            torch.from_numpy(cases[name]).to(device) for name in ("estimate", "target", "labels", "loss", "permutation")
        )
    result = ops.pit_loss(estimates, targets, kind="snr", classes=classes, backend=backend)
    assert torch.equal(result.permutation, permutation)
    mean = result.loss.double() * (classes >= 0).double().mean(1)
    torch.testing.assert_close(mean, loss, rtol=0, atol=1e-4)
