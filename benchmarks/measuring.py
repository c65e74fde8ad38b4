"""Time, bandwidth and memory on the CPU and on a GPU."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

#: Size and number of reads between two timings on a GPU: larger than its L2 cache, and long enough that the host can
#: launch ahead.
FLUSH_BYTES, FLUSHES = 256 * 2**20, 16

#: Note on a row whose time on a GPU may include launch overhead of the host.
HOST_BEHIND = "the host was still launching"


class Clock:
    """Times calls on one device: on a GPU with events, a cold cache, and launches ahead of execution.

    Attributes:
        host_ahead: whether the host had launched the whole last call before the GPU began it. If not, as with calls
            that launch hundreds of kernels or wait for results, the GPU may have waited for the host.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.host_ahead = True
        self._scratch: Tensor | None = None

    def seconds(self, run: Callable[[], object], calls: int = 1) -> float:
        """Duration of one call in seconds, averaged over `calls`."""
        if self.device == "cuda":
            return self._gpu_seconds(run)
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls

    def _gpu_seconds(self, run: Callable[[], object]) -> float:
        if self._scratch is None:
            self._scratch = torch.zeros(FLUSH_BYTES // 4, device=self.device)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(FLUSHES):
            self._scratch.sum()  # only reads: the cache would write changes back while `run` is timed
        start.record()
        run()
        end.record()
        self.host_ahead = not start.query()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000


def copy_bandwidth(clock: Clock, quick: bool) -> float:
    """Bytes per second that a copy of a large tensor reads and writes."""
    n_bytes = (64 if quick else 256) * 2**20
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=clock.device)
    destination = torch.zeros_like(source)
    times = [clock.seconds(lambda: destination.copy_(source)) for _ in range(8)]
    return 2 * n_bytes / statistics.median(times[1:])


def peak_memory(run: Callable[[], object], device: str) -> float | None:
    """Peak memory that a call allocates, including its outputs, in MiB; None if unknown."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        ctypes.CDLL(None).malloc_trim(0)  # so that freed memory is not counted
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = resident("VmRSS")
        run()
        return max(0.0, (resident("VmHWM") - before) / 1024)
    except (OSError, AttributeError, StopIteration):
        return None


def resident(name: str) -> int:
    """Reads a size in KiB from /proc/self/status."""
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith(f"{name}:")).split()[1])
