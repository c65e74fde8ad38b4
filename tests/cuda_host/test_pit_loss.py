"""The kernels of pit_loss.cuh, run on the host."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from task_aware import ops

from .conftest import Programs, every_build
from .running import Case, check, dtype_name

KINDS = ("mse", "l1", "bce", "snr", "si_sdr")
RATIOS = KINDS[3:]
SIDES = ("estimates", "targets")
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
# float32 sums of 16 elements, then float64; a gradient is rounded once to its dtype, bce's after a quotient.
LOSS_TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-6, torch.float64: 1e-12}
GRADIENT_TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 2**-8, torch.float64: 1e-12}
#: Where estimate and target are collinear, si_sdr's residual is what rounding leaves of the energies (2^-52 of them),
#: beside a floor of 2^-23, in the kernel as in the reference.
COLLINEAR, COLLINEAR_TOLERANCE = ("si_sdr, one of everything", "si_sdr, all equal"), 1e-6


@dataclass
class Sources:
    name: str
    estimates: Tensor
    targets: Tensor
    mask: Tensor | None = None
    allowed: Tensor | None = None


def sources(dtype: torch.dtype) -> list[Sources]:
    """S = 1 to 8 and 32, one element, odd lengths, whole groups, two chunks, masks, pairs that are not allowed, ties,
    NaN, infinite costs.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).to(dtype)

    found = [Sources(f"S={S}", random(1, S, 13), random(1, S, 13)) for S in range(1, 9)]
    found += [
        Sources("one of everything", random(1, 1, 1), random(1, 1, 1)),
        Sources("32 sources", random(1, 32, 5), random(1, 32, 5)),
        Sources("two chunks", random(1, 3, 4099), random(1, 3, 4099)),
        # Rows of whole groups of 16 bytes, the last chunk not full.
        *(Sources(f"groups, S={S}", random(2, S, 48), random(2, S, 48)) for S in (2, 5, 6)),
        Sources("groups, two chunks", random(1, 2, 4112), random(1, 2, 4112)),
        Sources("mask", random(3, 4, 33), random(3, 4, 33), torch.tensor([[1, 0, 1, 1], [0] * 4, [1] * 4]).bool()),
        Sources("all equal", torch.full((1, 9, 3), 0.25, dtype=dtype), torch.full((1, 9, 3), 0.5, dtype=dtype)),
    ]
    for S in (4, 6):  # classes, a target with one estimate only, an item without any assignment
        allowed = torch.ones(3, S, S, dtype=torch.bool)
        allowed[0] = torch.arange(S)[:, None] % 2 == torch.arange(S) % 2
        allowed[1, 0, 1:] = False
        allowed[2, :2, 1:] = False
        found.append(Sources(f"allowed, S={S}", random(3, S, 21), random(3, S, 21), allowed=allowed))
    broken = Sources("NaN", random(3, 5, 39), random(3, 5, 39))
    broken.estimates[1, 2, 7] = torch.nan
    absent = Sources("NaN in an absent target", random(1, 3, 9), random(1, 3, 9), torch.tensor([[True, False, True]]))
    absent.targets[0, 1, 4] = torch.nan
    far = Sources("infinite", random(1, 3, 9), random(1, 3, 9))
    far.targets[0, 0, 0] = torch.inf
    extremes = Sources("0 and 1", random(1, 3, 9).round(), random(1, 3, 9).round())
    return [*found, broken, absent, extremes, *([] if dtype == torch.bfloat16 else [far])]


def inputs(operation: str, kind: str, item: Sources) -> dict[str, Tensor | str | int | None]:
    B, S, N = item.estimates.shape
    names = {"operation": operation, "kind": KINDS.index(kind), "dtype": dtype_name(item.estimates.dtype)}
    return names | {"B": B, "S": S, "N": N} | {k: getattr(item, k) for k in ("estimates", "targets", "mask", "allowed")}


def reference(item: Sources, kind: str) -> tuple[Tensor, Tensor, ops.PITResult]:
    """Estimates and targets in float64, as leaves, and their result: NaN and the identity for an item with NaN, or
    without an assignment.
    """
    exists = torch.ones(item.targets.shape[:2], dtype=torch.bool) if item.mask is None else item.mask
    broken = (item.estimates.isnan() | item.targets.isnan() & exists[..., None]).flatten(1).any(1)
    allowed = item.allowed
    if allowed is not None:  # the last item of these; on the host, the reference refuses it
        broken[2] = True
        allowed = allowed.clone()
        allowed[2] = True
    # torch's binary_cross_entropy refuses NaN.
    e, t = (x.double().nan_to_num(0.5, posinf=torch.inf).requires_grad_() for x in (item.estimates, item.targets))
    loss, permutation = ops.pit_loss_reference(e, t, kind=kind, mask=item.mask, allowed=allowed)
    identity = torch.arange(exists.shape[1]).expand_as(permutation)
    loss = loss + torch.where(broken, torch.nan, 0.0)
    return e, t, ops.PITResult(loss, torch.where(broken[:, None], identity, permutation))


def loss_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def outputs(item: Sources, kind: str = "mse") -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    B, S, _ = item.estimates.shape
    found = {"loss": (loss_dtype(item.estimates.dtype), (B,)), "permutation": (torch.int64, (B, S))}
    return found | ({"slopes": (torch.float64, (B, S, 5))} if kind in RATIOS else {})


def tolerance(case: Case, of_dtype: dict[torch.dtype, float], dtype: torch.dtype) -> float:
    return max(of_dtype[dtype], COLLINEAR_TOLERANCE) if case.name in COLLINEAR else of_dtype[dtype]


@every_build(DTYPES)
def test_forward(programs: Programs, build: str, dtype: torch.dtype) -> None:
    cases, wanted = [], []
    for kind, item in itertools.product(KINDS, sources(dtype)):
        if item.name == "infinite" and kind in ("bce", *RATIOS):  # no probability, or a ratio of two infinities
            continue
        if item.name == "32 sources" and (kind, dtype) != ("mse", torch.float32):  # a thousand pairs take their time
            continue
        cases.append(Case(f"{kind}, {item.name}", inputs("forward", kind, item), outputs(item, kind)))
        wanted.append(reference(item, kind)[2])
    results = programs("pit_loss", build).run(cases, schedules=3 if build == "plain" else 1)
    for case, result, want in zip(cases, results, wanted, strict=True):
        assert torch.equal(result["permutation"], want.permutation), case.name
        # In dB, an error of the energies' sums is one of the ratio, however small that is.
        decibels = 10.0 if case.name.startswith(RATIOS) else None
        check(case.name, result["loss"], want.loss, tolerance(case, LOSS_TOLERANCE, dtype), decibels)


def awkward_costs(S: int) -> Tensor:
    """[items,S,S] in float64: ties of all sorts, equal rows and columns, absent targets, infinities, wide ranges."""
    generator = torch.Generator().manual_seed(S)

    def whole(below: int) -> Tensor:
        return torch.randint(below, (60, S, S), generator=generator).double()

    def some(share: float, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) < share

    noise = torch.rand(60, S, S, generator=generator, dtype=torch.float64)
    infinite = torch.where(some(0.5, 60, S, S), torch.inf, -torch.inf)
    return torch.cat(
        [
            torch.full((1, S, S), torch.inf).double(),
            whole(1),
            whole(2),
            whole(4) - 2,
            whole(3)[:, :, :1].expand(60, S, S),
            whole(3)[:, :1].expand(60, S, S),
            torch.where(some(0.4, 60, S, 1), 0.0, whole(3)),
            torch.where(some(0.4, 60, S, S), torch.inf, whole(3)),
            torch.where(some(0.3, 60, S, S), infinite, whole(3)),
            noise,
            noise * 2.0 ** (80 * whole(3) - 80),
            1.0 + noise.round() * 2.0**-46,
        ]
    )


def cheapest(costs: Tensor) -> list[int]:
    """The lexicographically first of the best permutations, of costs rounded as common/assignment.h says."""
    rows = costs.tolist()
    largest = max((abs(cost) for row in rows for cost in row if not math.isinf(cost)), default=0.0)
    scale = 2.0 ** (47 - math.frexp(largest)[1]) if largest > 0 else 1.0
    rounded = [[int(math.copysign(2**53, x)) if math.isinf(x) else round(x * scale) for x in row] for row in rows]
    targets = range(len(rows))
    # min returns the first of equals.
    return list(min(itertools.permutations(targets), key=lambda order: sum(rounded[j][order[j]] for j in targets)))


def test_assignment_of_a_few_sources(programs: Programs, build: str) -> None:
    costs = {S: awkward_costs(S)[:: 1 if build == "plain" else 7] for S in range(1, 6)}
    cases = [
        Case(
            f"S={S}",
            {"operation": "assignment", "B": len(items), "S": S, "costs": items.contiguous()},
            {name: (torch.int64, (len(items), S)) for name in ("solved", "scored")},
        )
        for S, items in costs.items()
    ]
    for result, items in zip(programs("pit_loss", build).run(cases), costs.values(), strict=True):
        wanted = [cheapest(item) for item in items]
        assert result["solved"].tolist() == wanted
        assert result["scored"].tolist() == wanted


@every_build(DTYPES)
def test_backward(programs: Programs, build: str, dtype: torch.dtype) -> None:
    program, cases, wanted = programs("pit_loss", build), [], []
    items = [item for item in sources(dtype) if item.name not in ("infinite", "0 and 1")]  # with finite gradients
    ratios = [
        Case(f"{kind}, {item.name}", inputs("forward", kind, item), outputs(item, kind))
        for kind, item in itertools.product(RATIOS, items)
    ]
    slopes = {case.name: found["slopes"] for case, found in zip(ratios, program.run(ratios), strict=True)}
    for kind, (k, item) in itertools.product(KINDS, enumerate(items)):
        name = f"{kind}, {item.name}"
        e, t, (loss, permutation) = reference(item, kind)
        grad = torch.linspace(-1, 2, len(loss), dtype=torch.float64)
        gradients = dict(zip(SIDES, torch.autograd.grad(loss, [e, t], grad), strict=True))
        sides = [SIDES, SIDES[:1], SIDES[1:]][k % 3]
        given = {
            "loss": loss.detach().to(loss_dtype(dtype)),
            "grad": grad.to(loss_dtype(dtype)),
            "permutation": permutation,
        }
        given |= {f"wants_{side}": int(side in sides) for side in SIDES}
        if kind in RATIOS:
            given["slopes"] = slopes[name]
        gradients_out = {f"grad_{side}": (dtype, tuple(e.shape)) for side in sides}
        cases.append(Case(name, inputs("backward", kind, item) | given, gradients_out))
        broken = loss.isnan()[:, None, None]
        wanted.append({f"grad_{side}": gradients[side].masked_fill(broken, torch.nan) for side in sides})
    results = program.run(cases, schedules=2 if build == "plain" else 1)
    for case, result, want in zip(cases, results, wanted, strict=True):
        for name, gradient in want.items():
            check(f"{case.name}, {name}", result[name], gradient, tolerance(case, GRADIENT_TOLERANCE, dtype))
