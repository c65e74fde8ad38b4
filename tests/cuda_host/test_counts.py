"""What the kernels cost shared and global memory, and that it grows no further: see counting.h."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from . import test_mel_spectrogram, test_reverb_mix
from .conftest import Programs
from .running import Case

F32 = torch.float32
LANES = torch.arange(32)

# float32 at shapes that fill whole blocks: the program, its case, and of each kernel the most wavefronts of shared
# memory and lines of global memory of a block. `pytest tests/cuda_host/test_counts.py -s` prints what they are now.
LIMITS: dict[str, tuple[Callable[[], Case], dict[str, tuple[float, float]]]] = {
    # A block is four frames of 2048 samples.
    "mel_spectrogram": (
        lambda: test_mel_spectrogram.case(torch.randn(1, 15 * 255), {}),
        {"mel_spectrogram_kernel": (2448, 2130)},
    ),
    # Transforms of 16384 values, the largest: a block of mix_kernel has two forward and one inverse.
    "reverb_mix": (
        lambda: test_reverb_mix.case(test_reverb_mix.sample(F32, (1, 1, 33000, 16000))),
        {"mix_kernel": (18432, 9233), "response_kernel": (6144, 2650)},
    ),
}


@pytest.mark.parametrize("program", LIMITS)
def test_no_kernel_costs_more_than_before(programs: Programs, program: str) -> None:
    make_case, limits = LIMITS[program]
    torch.manual_seed(0)
    counts = programs(program, "counts").count(make_case())
    assert set(counts) == set(limits), "every kernel has its limits in LIMITS, and no other"
    for kernel, count in counts.items():
        wavefronts, lines = count.wavefronts / count.blocks, count.lines / count.blocks
        print(
            f"{kernel}: {wavefronts:.0f} wavefronts ({count.least_wavefronts / count.blocks:.0f} without conflicts), "
            f"{lines:.0f} lines ({count.least_lines / count.blocks:.0f} were all side by side), of each of "
            f"{count.blocks} blocks"
        )
        assert wavefronts <= limits[kernel][0] and lines <= limits[kernel][1]


@pytest.mark.parametrize(
    ("what", "bytes", "places", "wavefronts"),
    [
        ("side by side", 4, LANES, 1),
        ("one word for all", 4, 7 * torch.ones(32), 1),
        ("every other word", 4, 2 * LANES, 2),
        ("a column", 4, 32 * LANES, 32),
        ("a padded column", 4, 31 * LANES, 1),
        ("half of the lanes", 4, torch.where(LANES % 2 == 0, LANES * 32, -1), 16),
        ("pairs side by side", 8, LANES, 2),
        ("a column of pairs", 8, 16 * LANES, 32),
        ("fours side by side", 16, LANES, 4),
        ("every other four", 16, 2 * LANES, 8),
    ],
)
def test_bank_conflicts_are_counted(
    programs: Programs, what: str, bytes: int, places: torch.Tensor, wavefronts: int
) -> None:
    inputs = {"operation": "read_shared", "bytes": bytes, "places": places.int()}
    (count,) = programs("accesses", "counts").count(Case(what, inputs, {"data": (F32, (256 * bytes,))})).values()
    active = bytes // 4 if (places >= 0).any() else 0
    assert (count.blocks, count.wavefronts, count.least_wavefronts) == (1, wavefronts, active)


@pytest.mark.parametrize(
    ("what", "bytes", "places", "lines"),
    [
        ("side by side", 4, LANES, 1),
        ("one behind a line's beginning", 4, LANES + 1, 2),
        ("one of each line", 4, 32 * LANES, 32),
        ("fours side by side", 16, LANES, 4),
        ("the same for all", 16, 9 * torch.ones(32), 1),
    ],
)
def test_lines_are_counted(programs: Programs, what: str, bytes: int, places: torch.Tensor, lines: int) -> None:
    inputs = {"operation": "read_global", "bytes": bytes, "places": places.int()}
    (count,) = programs("accesses", "counts").count(Case(what, inputs, {"data": (F32, (256 * bytes,))})).values()
    # `places` itself is read once to compare it and once to use it.
    assert count.lines == lines + 2
