"""What device.h gives to kernels, against the definitions: barriers, shared memory, exchanges, atomics."""

from __future__ import annotations

import torch
from torch import Tensor

from .conftest import Programs
from .running import Case


def run(
    programs: Programs,
    build: str,
    operation: str,
    data: Tensor,
    count: int,
    grid: tuple[int, int, int],
    threads: int,
    before: Tensor | None = None,
) -> Tensor:
    sizes = dict(zip("xyz", grid, strict=True)) | {"threads": threads, "count": count}
    inputs = {"operation": operation, "in": data.int(), "before": None if before is None else before.int()} | sizes
    case = Case(operation, inputs, {"out": (torch.int32, (count,))})
    (result,) = programs("primitives", build).run([case], schedules=6)
    return result["out"]


def test_barriers_and_static_shared_memory(programs: Programs, build: str) -> None:
    data = torch.randperm(3 * 100)
    out = run(programs, build, "reverse", data, 300, (3, 1, 1), 100)
    assert torch.equal(out, data.view(3, 100).flip(1).flatten().int())


def test_dynamic_shared_memory(programs: Programs, build: str) -> None:
    data = torch.randint(1000, (4, 64))
    out = run(programs, build, "block_sum", data, 256, (4, 1, 1), 64)
    assert torch.equal(out.view(4, 64), data.sum(1, keepdim=True).expand(4, 64).int())


def test_every_block_finds_shared_memory_unwritten(programs: Programs, build: str) -> None:
    assert run(programs, build, "unwritten", torch.zeros(0), 6, (3, 1, 1), 1).tolist() == [-1] * 6


def test_exchanges_within_a_warp(programs: Programs, build: str) -> None:
    data, lane = torch.randint(1000, (64,)), torch.arange(64) % 32
    out = run(programs, build, "exchanges", data, 512, (1, 1, 1), 64).view(64, 8).T
    warps = data.view(2, 32)
    base = torch.arange(64) // 32 * 32

    def each(values: Tensor) -> Tensor:
        return values.repeat_interleave(32)

    wanted = [
        data[base + (lane ^ 1)],
        data[base + torch.where(lane + 3 < 32, lane + 3, lane)],
        data[base + torch.where(lane % 8 >= 3, lane - 3, lane)],
        data[base + lane // 16 * 16 + 5],
        each(((warps % 3 == 0).long() << torch.arange(32)).sum(1)),
        each((warps == 7).any(1) + 10),
        each(warps.sum(1) + warps.amax(1) - warps.amin(1)),
        3 * data[base + (lane ^ 2)],
    ]
    assert torch.equal(out, torch.stack(wanted).int())


def test_parts_of_a_warp_exchange_apart(programs: Programs, build: str) -> None:
    data = torch.arange(48)
    out = run(programs, build, "halves", data, 48, (1, 1, 1), 48)
    for begin, end in ((0, 32), (32, 48)):
        warp = data[begin:end]
        assert out[begin:end:2].tolist() == [-int(warp[::2].sum())] * (len(warp) // 2)
        assert out[begin + 1 : end : 2].tolist() == [int(warp[1::2].sum())] * (len(warp) // 2)


def test_barriers_of_a_warp(programs: Programs, build: str) -> None:
    data = torch.randint(1000, (2, 32))
    out = run(programs, build, "warp_barriers", data, 64, (1, 1, 1), 64)
    assert torch.equal(out.view(2, 32), (data.roll(-5, 1) + 5).int())


def test_atomics_and_the_last_block(programs: Programs, build: str) -> None:
    data = torch.randint(1000, (6, 40))
    out = run(programs, build, "atomics", data, 8, (6, 1, 1), 40, before=torch.zeros(8))
    assert out.tolist() == [*(data & 3).flatten().bincount(minlength=4).tolist(), int(data.max()), 240, 1, 0]


def test_vectors_grids_and_intrinsics(programs: Programs, build: str) -> None:
    data = torch.randint(1, 1000, (8, 4))
    out = run(programs, build, "the_rest", data, 2 * 3 * 2 * 8 * 4, (2, 3, 2), 8).view(12, 8, 4)
    w = data[:, 3].tolist()
    bits = [x.bit_count() + 100 * (32 - x.bit_length()) + 10000 * ((x & -x).bit_length()) for x in w]
    rounded = torch.full((8,), 1649 + 1000000 + 32)  # 1000 exp(0.5), 2000000 / sqrt(4), the warp's size
    wanted = torch.stack([data.sum(1), data.flatten()[:8], torch.tensor(bits), rounded], 1)
    assert torch.equal(out, wanted.int().expand(12, 8, 4))
