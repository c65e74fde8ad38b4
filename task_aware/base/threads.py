"""How idle CPU threads wait for their next piece of work, decided before torch loads OpenMP."""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping
from pathlib import Path

#: Turns of GNU OpenMP's waiting loop before a thread sleeps: some 0.3 ms, longer than the pauses between operators.
SPINS = "30000"


def choose_waiting(environment: MutableMapping[str, str]) -> None:
    """Lets idle threads wait a moment before they sleep, where no other program needs their cores.

    A training step consists of thousands of parallel pieces, and waking a thread takes longer than many of them. But a
    thread that waits on a core that another program needs makes both slow. Results are the same either way.

    Args:
        environment: where the variables of OpenMP are set, if it has none that say how to wait.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & environment.keys():
        return
    cores = os.cpu_count() or 1
    threads = environment.get("OMP_NUM_THREADS", "")
    if running_elsewhere() + (int(threads) if threads.isdigit() else cores) <= cores:
        environment["GOMP_SPINCOUNT"] = SPINS
    else:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"


def running_elsewhere(loadavg: Path = Path("/proc/loadavg")) -> int:
    """Threads of other programs that have been running for the last 20 ms, as Linux counts them (elsewhere: 1)."""
    least = 1 << 16
    for pause in (0, 0.005, 0.005, 0.005, 0.005):
        if least == 0:
            break  # nothing has been running all the time
        time.sleep(pause)
        try:
            others = int(loadavg.read_text().split()[3].partition("/")[0]) - 1  # one of them reads this
        except (OSError, ValueError, IndexError):
            return 1
        least = min(least, max(others, 0))
    return least
