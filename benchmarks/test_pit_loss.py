"""pit_loss and reorder, compared with PyTorch and with torchmetrics and Asteroid, which search on the host.

With classes: against the search over all permutations in Python as the DCASE 2026 task 4 baseline does it."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from task_aware import ops

from .side_by_side import Case, Implementation, Settings, SideBySide, compiled, peer

#: Sources up to which listing all permutations is the faster way in PyTorch.
EXHAUSTIVE_UP_TO = 6


class Shape(NamedTuple):
    """Sizes `[B,S,*]` and the kind of loss."""

    sizes: tuple[int, ...]
    kind: str = "mse"

    def __str__(self) -> str:
        return f"{self.kind} [{','.join(map(str, self.sizes))}]"


HEADLINE = Shape((12, 5, 128, 628))
ROWS = Shape((12, 5, 128, 628), "rows")
CLASSES = Shape((12, 4, 64_000), "snr")


def make_sources(sizes: tuple[int, ...], device: str) -> tuple[Tensor, Tensor]:
    """Makes targets in [0,1] and estimates that are close to them, in another order."""
    targets = torch.rand(sizes, device=device)
    order = torch.rand(sizes[:2], device=device).argsort(1)
    noise = torch.rand(sizes, device=device)
    return 0.8 * ops.reorder_reference(targets, order) + 0.2 * noise, targets


def mean_distance(estimates: Tensor, targets: Tensor, kind: str) -> Tensor:
    """`[B,*]` both -> `[B]`."""
    distance = F.binary_cross_entropy if kind == "bce" else F.mse_loss
    return distance(estimates, targets, reduction="none").flatten(1).mean(1)


def pair_costs(estimates: Tensor, targets: Tensor, kind: str) -> Tensor:
    """Costs `[B, target, estimate]` by broadcasting, a mean over the elements."""
    e, t = torch.broadcast_tensors(estimates.flatten(2)[:, None], targets.flatten(2)[:, :, None])
    distance = F.binary_cross_entropy if kind == "bce" else F.mse_loss
    return distance(e, t, reduction="none").mean(-1)


def exhaustive_form(kind: str, n_sources: int, device: str) -> Implementation:
    """Tries all permutations of the cost matrix, then computes the loss of the chosen pairs for a short backward.

    The fastest form in PyTorch that we know of, written for torch.compile.
    """
    table = torch.tensor(list(itertools.permutations(range(n_sources))), device=device)
    rows = torch.arange(n_sources, device=device)

    def pit_loss(estimates: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            totals = pair_costs(estimates, targets, kind)[:, rows, table].sum(-1)
            permutation = table[totals.argmin(-1)]
        matched = ops.reorder_reference(estimates, permutation)
        return mean_distance(matched, targets, kind), permutation

    return pit_loss


def host_form(kind: str, solve: Any) -> Implementation:
    """Computes costs on the device and assigns each item on the host with scipy, as detection transformers do."""

    def pit_loss(estimates: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            costs = pair_costs(estimates, targets, kind).cpu().numpy()
            permutation = torch.stack([torch.from_numpy(solve(cost)[1]) for cost in costs]).to(estimates.device)
        return mean_distance(ops.reorder_reference(estimates, permutation), targets, kind), permutation

    return pit_loss


def make_peers(shape: Shape, settings: Settings, device: str) -> dict[str, Implementation]:
    kind, n_sources = shape.kind, shape.sizes[1]
    peers: dict[str, Implementation] = {}
    if settings.compiled and n_sources <= EXHAUSTIVE_UP_TO:
        form = exhaustive_form(kind, n_sources, device)
        peers["exhaustive PyTorch"] = form
        peers["torch.compile of it"] = compiled(form)
    if n_sources > EXHAUSTIVE_UP_TO and (scipy := peer("scipy.optimize")):
        peers["costs in PyTorch, scipy on the host"] = host_form(kind, scipy.linear_sum_assignment)
    if torchmetrics := peer("torchmetrics.functional.audio"):
        peers["torchmetrics, speaker-wise"] = lambda estimates, targets: torchmetrics.permutation_invariant_training(
            estimates,
            targets,
            lambda e, t: mean_distance(e, t, kind),
            mode="speaker-wise",
            eval_func="min",
        )
    if kind == "mse" and (asteroid := peer("asteroid.losses")):
        wrapper = asteroid.PITLossWrapper
        peers["Asteroid, pw_mtx"] = lambda estimates, targets: wrapper.find_best_perm(
            asteroid.pairwise_mse(estimates.flatten(2), targets.flatten(2))
        )
        peers["Asteroid, pw_pt"] = lambda estimates, targets: wrapper.find_best_perm(
            wrapper(asteroid.singlesrc_mse, pit_from="pw_pt").get_pw_losses(
                asteroid.singlesrc_mse, estimates.flatten(2), targets.flatten(2)
            )
        )
    return peers


def make_case(shape: Shape, device: str) -> Case:
    estimates, targets = make_sources(shape.sizes, device)
    size = estimates.nbytes
    return Case(
        "pit_loss",
        str(shape),
        (estimates, targets),
        bytes_forward=2 * size,
        tolerance=1e-5,
        differentiated=(0,),
        output_gradients=(torch.ones(shape.sizes[0], device=device),),
        bytes_backward=3 * size,
    )


def native(shape: Shape) -> Implementation:
    return lambda e, t: ops.pit_loss(e, t, kind=shape.kind, backend="native")


def negative_snr(estimates: Tensor, targets: Tensor) -> Tensor:
    """`[...,N]` both -> `[...]` in dB."""
    error, energy = ((x.square()).sum(-1) + 2.0**-23 for x in (targets - estimates, targets))
    return -10 * torch.log10(energy / error)


def search_in_python(estimates: Tensor, targets: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Scores each pair of rows that some item allows, then looks up the scores of all S! permutations.

    As in the challenge's baseline, the gradient flows through the table of pairs; and its mean over all rows, of
    which those without a source count 0, is made one over the sources.
    """
    B, S = classes.shape
    nothing = classes < 0
    same = (classes[:, :, None] == classes[:, None, :]) & ~nothing[:, :, None]
    table = torch.full((B, S, S), 1e9, dtype=torch.float64, device=estimates.device)
    table.diagonal(dim1=1, dim2=2)[nothing] = 0
    for j in range(S):
        for i in range(S):
            allowed = same[:, j, i]
            if allowed.any():
                table[allowed, j, i] = negative_snr(estimates[:, i], targets[:, j])[allowed].double()
    orders = torch.tensor(list(itertools.permutations(range(S))), device=estimates.device)
    totals = table.gather(2, orders.T[None].expand(B, -1, -1)).mean(1)
    best, chosen = totals.min(1)
    return (best * S / (~nothing).sum(1)).to(estimates.dtype), orders[chosen]


def masked_form(estimates: Tensor, targets: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Tries all permutations of a table with infinite costs where classes differ: for torch.compile."""
    there = classes >= 0
    S = classes.shape[1]
    orders = torch.tensor(list(itertools.permutations(range(S))), device=estimates.device)
    with torch.no_grad():
        table = negative_snr(estimates[:, None], targets[:, :, None]).where(there[:, :, None], 0.0)
        table = table.masked_fill(classes[:, :, None] != classes[:, None, :], torch.inf)
        permutation = orders[table[:, torch.arange(S), orders].sum(-1).argmin(-1)]
    chosen = negative_snr(ops.reorder_reference(estimates, permutation), targets).where(there, 0.0)
    return chosen.sum(1) / there.sum(1), permutation


def make_classes_case(shape: Shape, device: str) -> Case:
    """Waveforms of two classes and of nothing; each item has a source at least.

    Ratios are about 10 dB: a sum of float32 that is exact to 1e-6 moves each by 4e-6 dB, which of 0 dB is too much.
    """
    B, S, _ = shape.sizes
    targets = torch.randn(shape.sizes, device=device)
    classes = torch.randint(-1, 2, (B, S), device=device)
    classes[:, 0] = 0
    size = targets.nbytes
    return Case(
        "pit_loss in classes",
        str(shape),
        (targets + 0.3 * torch.randn_like(targets), targets, classes),
        bytes_forward=2 * size,
        tolerance=1e-5,
        differentiated=(0,),
        output_gradients=(torch.ones(B, device=device),),
        bytes_backward=3 * size,
    )


def make_reorder_case(shape: Shape, device: str) -> Case:
    estimates = torch.rand(shape.sizes, device=device)
    order = torch.rand(shape.sizes[:2], device=device).argsort(1)
    return Case(
        "reorder",
        str(shape),
        (estimates, order),
        bytes_forward=2 * estimates.nbytes,
        tolerance=0.0,
        differentiated=(0,),
        output_gradients=(torch.rand_like(estimates),),
        bytes_backward=2 * estimates.nbytes,
    )


def native_reorder(estimates: Tensor, order: Tensor) -> tuple[Tensor]:
    return (ops.reorder(estimates, order, backend="native"),)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.shapes(
    [
        HEADLINE,
        Shape((4, 10, 128, 628)),
        Shape((4, 20, 128, 157)),
        Shape((64, 20, 16)),
        Shape((1, 5, 4_000_000)),
        Shape((12, 5, 10), "bce"),
        Shape((12, 5, 157, 10), "bce"),
    ],
    quick=[Shape((2, 5, 16, 40)), Shape((2, 9, 64)), Shape((2, 20, 64)), Shape((3, 5, 10), "bce")],
    full=[Shape((96, 5, 128, 628))],
    headline=[HEADLINE],
)
def test_pit_loss(side_by_side: SideBySide, shape: Shape, backward: bool) -> None:
    side_by_side.compare(
        make_case(shape, side_by_side.device),
        native(shape),
        lambda e, t: ops.pit_loss_reference(e, t, kind=shape.kind),
        make_peers(shape, side_by_side.settings, side_by_side.device),
        backward=backward,
    )


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.shapes([CLASSES], quick=[Shape((2, 4, 400), "snr")], headline=[CLASSES])
def test_pit_loss_in_classes(side_by_side: SideBySide, shape: Shape, backward: bool) -> None:
    peers: dict[str, Implementation] = {"search over S! in Python": search_in_python}
    if side_by_side.settings.compiled:
        peers["torch.compile of a masked search"] = compiled(masked_form)
    side_by_side.compare(
        make_classes_case(shape, side_by_side.device),
        lambda e, t, classes: ops.pit_loss(e, t, kind="snr", classes=classes, backend="native"),
        lambda e, t, classes: ops.pit_loss_reference(e, t, kind="snr", classes=classes),
        peers,
        backward=backward,
    )


@pytest.mark.shapes([ROWS], quick=[Shape((2, 5, 16, 40), "rows")], headline=[ROWS])
def test_reorder(side_by_side: SideBySide, shape: Shape) -> None:
    side_by_side.compare(
        make_reorder_case(shape, side_by_side.device),
        native_reorder,
        lambda e, order: (ops.reorder_reference(e, order),),
        backward=True,
    )
