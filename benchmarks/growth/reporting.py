"""`python -m benchmarks.growth.reporting MODULE ...` runs a module, then prints the process' largest memory in MiB.

The process itself has to say: what the system tells its parent is that of the parent, if that was larger.
"""

from __future__ import annotations

import atexit
import runpy
import sys


def report() -> None:
    try:
        with open("/proc/self/status") as status:
            print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:")), flush=True)
    except (OSError, StopIteration):
        print("null", flush=True)


if __name__ == "__main__":
    atexit.register(report)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
