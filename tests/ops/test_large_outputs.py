"""Large outputs of the CPU kernels lie in huge pages, which are hundreds of times fewer faults than usual ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from task_aware import ops


def flags_of_memory(address: int) -> list[str]:
    """What the system was told about the memory at an address, as in `man proc`."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if "-" in first:
            begin, end = (int(text, 16) for text in first.split("-"))
            inside = begin <= address < end
        elif inside and first == "VmFlags:":
            return line.split()[1:]
    raise AssertionError(f"no mapping holds {address:#x}")


def gradient() -> Tensor:
    estimates = torch.rand(1, 2, 1 << 20, requires_grad=True)
    ops.pit_loss(estimates, torch.rand_like(estimates), backend="native").loss.sum().backward()
    assert estimates.grad is not None
    return estimates.grad


def images() -> Tensor:
    sources = torch.zeros(1, 2, 1 << 20)
    return ops.reverb_mix(sources, torch.zeros(1, 2, 1), torch.zeros(1, 2), backend="native").images


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").is_dir(), reason="the system has no transparent huge pages"
)
@pytest.mark.parametrize("make", [gradient, images])
def test_large_outputs_ask_for_huge_pages(make: Callable[[], Tensor]) -> None:
    output = make()
    assert "hg" in flags_of_memory(output.data_ptr() + output.nbytes // 2)
