"""pit_loss and reorder: against torchmetrics and Asteroid, which find permutations on the host."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from task_aware import ops

from .side_by_side import Case, Implementation, SideBySide, peer


class Shape(NamedTuple):
    """Sizes `[B,S,*]` and the kind of loss."""

    sizes: tuple[int, ...]
    kind: str = "mse"

    def __str__(self) -> str:
        return f"{self.kind} [{','.join(map(str, self.sizes))}]"


def make_sources(sizes: tuple[int, ...], device: str) -> tuple[Tensor, Tensor]:
    """Targets in [0,1], and estimates that are near them in another order."""
    targets = torch.rand(sizes, device=device)
    order = torch.rand(sizes[:2], device=device).argsort(1)
    noise = torch.rand(sizes, device=device)
    return 0.8 * ops.reorder_reference(targets, order) + 0.2 * noise, targets


def mean_distance(estimates: Tensor, targets: Tensor, kind: str) -> Tensor:
    """`[B,*]` both -> `[B]`."""
    distance = F.binary_cross_entropy if kind == "bce" else F.mse_loss
    return distance(estimates, targets, reduction="none").flatten(1).mean(1)


def make_peers(kind: str) -> dict[str, Implementation]:
    peers: dict[str, Implementation] = {}
    if torchmetrics := peer("torchmetrics.functional.audio"):
        peers["torchmetrics, speaker-wise"] = lambda estimates, targets: torchmetrics.permutation_invariant_training(
            estimates,
            targets,
            lambda e, t: mean_distance(e, t, kind),
            mode="speaker-wise",
            eval_func="min",
        )
    if kind == "mse" and (asteroid := peer("asteroid.losses")):
        peers["Asteroid, pw_mtx"] = lambda estimates, targets: asteroid.PITLossWrapper.find_best_perm(
            asteroid.pairwise_mse(estimates.flatten(2), targets.flatten(2))
        )
    return peers


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.shapes(
    [
        Shape((12, 5, 128, 628)),
        Shape((4, 10, 128, 628)),
        Shape((4, 20, 128, 157)),
        Shape((12, 5, 10), "bce"),
        Shape((12, 5, 157, 10), "bce"),
    ],
    quick=[Shape((2, 5, 16, 40)), Shape((2, 9, 64)), Shape((2, 20, 64)), Shape((3, 5, 10), "bce")],
    full=[Shape((96, 5, 128, 628))],
)
def test_pit_loss(side_by_side: SideBySide, shape: Shape, backward: bool) -> None:
    estimates, targets = make_sources(shape.sizes, side_by_side.device)
    size = estimates.nbytes
    case = Case(
        "pit_loss",
        str(shape),
        (estimates, targets),
        bytes_forward=2 * size,
        tolerance=1e-5,
        differentiated=(0,),
        output_gradients=(torch.ones(shape.sizes[0], device=side_by_side.device),),
        bytes_backward=3 * size,
    )
    side_by_side.compare(
        case,
        lambda e, t: ops.pit_loss(e, t, kind=shape.kind, backend="native"),
        lambda e, t: ops.pit_loss_reference(e, t, kind=shape.kind),
        make_peers(shape.kind),
        backward=backward,
    )


@pytest.mark.shapes([Shape((12, 5, 128, 628), "rows")], quick=[Shape((2, 5, 16, 40), "rows")])
def test_reorder(side_by_side: SideBySide, shape: Shape) -> None:
    estimates = torch.rand(shape.sizes, device=side_by_side.device)
    order = torch.rand(shape.sizes[:2], device=side_by_side.device).argsort(1)
    case = Case(
        "reorder",
        str(shape),
        (estimates, order),
        bytes_forward=2 * estimates.nbytes,
        tolerance=0.0,
        differentiated=(0,),
        output_gradients=(torch.rand_like(estimates),),
        bytes_backward=2 * estimates.nbytes,
    )
    side_by_side.compare(
        case,
        lambda e, order: (ops.reorder(e, order, backend="native"),),
        lambda e, order: (ops.reorder_reference(e, order),),
        backward=True,
    )
