"""What tensor_core.cpp gives to kernels, against matrix products and the fragments of the PTX ISA."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from .conftest import Programs
from .running import Case, KernelError

LANE = torch.arange(32)
GROUP, MEMBER = LANE // 4, LANE % 4  # groupID and threadID_in_group of the PTX ISA
DEPTH = {"bfloat16": 16, "tf32": 8}

# Of the elements a0, a1, ..., b0, ... and c0, ...: row and column, each of all lanes.
Places = list[tuple[Tensor, Tensor]]
SUMS: Places = [(GROUP + 8 * (i // 2), 2 * MEMBER + i % 2) for i in range(4)]
FRAGMENTS: dict[str, tuple[Places, Places]] = {
    "bfloat16": (
        [(GROUP + 8 * (i // 2 % 2), 2 * MEMBER + i % 2 + 8 * (i // 4)) for i in range(8)],
        [(2 * MEMBER + i % 2 + 8 * (i // 2), GROUP) for i in range(4)],
    ),
    "tf32": (
        [(GROUP + 8 * (i % 2), MEMBER + 4 * (i // 2)) for i in range(4)],
        [(MEMBER + 4 * i, GROUP) for i in range(2)],
    ),
}


def words(kind: str, matrix: Tensor, places: Places) -> Tensor:
    """A matrix in the registers of each lane, [32,words]."""
    elements = torch.stack([matrix[place] for place in places], 1)
    return (elements.bfloat16() if kind == "bfloat16" else elements).contiguous().view(torch.int32)


def product(programs: Programs, build: str, kind: str, a: Tensor, b: Tensor, c: Tensor, lanes: int = 32) -> Tensor:
    of_a, of_b = FRAGMENTS[kind]
    parts = [words(kind, a, of_a), words(kind, b, of_b), words("float32", c, SUMS)]
    inputs = {"operation": kind, "in": torch.cat(parts, 1), "x": 1, "y": 1, "z": 1, "threads": lanes, "count": 128}
    (result,) = programs("primitives", build).run([Case(kind, inputs, {"out": (torch.int32, (32, 4))})], schedules=3)
    sums = torch.empty(16, 8)
    for i, place in enumerate(SUMS):
        sums[place] = result["out"].view(torch.float32)[:, i]
    return sums


@pytest.mark.parametrize("kind", DEPTH)
def test_small_integers_are_multiplied_exactly(programs: Programs, build: str, kind: str) -> None:
    a, b = torch.randint(-9, 10, (16, DEPTH[kind])).float(), torch.randint(-9, 10, (DEPTH[kind], 8)).float()
    c = torch.randint(-99, 100, (16, 8)).float()
    assert torch.equal(product(programs, build, kind, a, b, c), c + a @ b)


@pytest.mark.parametrize("kind", DEPTH)
def test_sums_are_cut_off_toward_zero(programs: Programs, kind: str) -> None:
    a, b = torch.zeros(16, DEPTH[kind]), torch.zeros(DEPTH[kind], 8)
    a[:, 0], b[0] = 1, 2.0**-24 * 1.5
    for c in (torch.ones(16, 8), -torch.ones(16, 8)):
        # nearest to 1 + 1.5 · 2^-24 is 1 + 2^-23; beside -1 the product itself is cut off to 2^-24
        wanted = torch.where(c > 0, 1.0, -1.0 + 2.0**-24)
        assert torch.equal(product(programs, "plain", kind, a, b, c), wanted)


def test_tf32_ignores_the_last_bits(programs: Programs) -> None:
    a, b = torch.full((16, 8), 1 + 2.0**-10 + 2.0**-11), torch.ones(8, 8)
    assert torch.equal(product(programs, "plain", "tf32", a, b, torch.zeros(16, 8)), a * 0 + 8 * (1 + 2.0**-10))


@pytest.mark.parametrize("kind", DEPTH)
def test_what_is_not_finite_stays_in_its_column(programs: Programs, kind: str) -> None:
    a, b = torch.ones(16, DEPTH[kind]), torch.ones(DEPTH[kind], 8)
    b[3, 2], b[5, 4], b[0, 6] = torch.nan, torch.inf, 0
    sums = product(programs, "plain", kind, a, b, torch.zeros(16, 8))
    torch.testing.assert_close(sums, (a @ b).nan_to_num(posinf=torch.inf, nan=torch.nan), equal_nan=True)


def test_a_part_of_a_warp_cannot_multiply(programs: Programs) -> None:
    a, b = torch.ones(16, 8), torch.ones(8, 8)
    with pytest.raises(KernelError, match="mma.m16n8k8 with mask 0xffffffff waits for lane 20, which does not exist"):
        product(programs, "plain", "tf32", a, b, torch.zeros(16, 8), lanes=20)
