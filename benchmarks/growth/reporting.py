"""`python -m benchmarks.growth.reporting MODULE ...` runs a module, then prints the process' largest memory in MiB.

Of a process that has ended, the system tells its parent's memory if that was larger.
"""

from __future__ import annotations

import atexit
import runpy
import sys

from benchmarks.measuring import resident


def report() -> None:
    try:
        print(resident("VmHWM") / 1024, flush=True)
    except (OSError, StopIteration):
        print("null", flush=True)


if __name__ == "__main__":
    atexit.register(report)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
