"""Forks of a process that has used several threads."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_HARD = 2  # omp_pause_hard


def end_idle_threads(maps: Path = Path("/proc/self/maps")) -> None:
    """Ends the idle threads of GNU OpenMP that belong to this thread; the next parallel piece of work starts new ones.

    A process that is forked has none of them, but waits for them for ever.
    """
    try:
        lines = maps.read_text(errors="replace").splitlines()
    except OSError:
        return  # no Linux, where OpenMP is another
    for library in {line[line.index("/") :] for line in lines if "/libgomp" in line}:
        pause = getattr(ctypes.CDLL(library), "omp_pause_resource_all", None)
        if pause is not None:
            pause(_HARD)


os.register_at_fork(before=end_idle_threads)
