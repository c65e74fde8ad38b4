"""Times `pit_loss`, forward and backward, in several processes one after the other, beside `torch.compile`.

    python -m benchmarks.in_processes [--processes 7] [--rounds 15]

What a call takes depends on whether it finds its buffers in the process, or has to get them from the system, page by
page: on what the process did before. Each process therefore times both, `kept` as the C library leaves them and
`returned`, after `malloc_trim` has given them back. Times are processor time on one thread, which other programs change
less than that of the clock, and the median over the rounds, in which both implementations take turns.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("native", "torch.compile")


def measure(rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """The state of memory -> the implementation -> its `ms` and page `faults`, in this process."""
    import torch

    from .side_by_side import compiled, disagreement, prepare
    from .test_pit_loss import HEADLINE, exhaustive_form, make_case, native

    torch.manual_seed(0)
    torch.set_num_threads(1)
    case = make_case(HEADLINE, "cpu")
    functions = native(HEADLINE), compiled(exhaustive_form(HEADLINE.kind, HEADLINE.sizes[1], "cpu"))
    runs = {name: prepare(case, function, backward=True) for name, function in zip(NAMES, functions, strict=True)}
    expected = prepare(case, functions[0], backward=True, dtype=torch.float64)()
    for name, run in runs.items():
        problem = disagreement(run(), expected, case.tolerance)
        assert not problem, f"{name}: {problem}"
    del expected
    trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    found = {}
    for state in ("kept", "returned"):
        taken: dict[str, list[tuple[float, int]]] = {name: [] for name in NAMES}
        for _ in range(rounds):
            for name, run in runs.items():
                if state == "returned":
                    trim(0)
                faults, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
                run()
                seconds = time.process_time() - start
                taken[name].append((1000 * seconds, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults))
        found[state] = {
            name: dict(zip(("ms", "faults"), map(statistics.median, zip(*taken[name], strict=True)), strict=True))
            for name in NAMES
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=7, help="default: 7")
    parser.add_argument("--rounds", type=int, default=15, help="rounds in each; default: 15")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if min(options.processes, options.rounds) < 1:
        parser.error("give at least one process and one round")
    if options.here:
        print(json.dumps(measure(options.rounds)))
        return
    found = []
    for number in range(options.processes):
        print(f"process {number + 1} of {options.processes}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks.in_processes", "--here", f"--rounds={options.rounds}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        answer = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(answer.stdout.splitlines()[-1]))
    print(f"{platform.machine()}, {os.cpu_count()} cores, {options.processes} processes, {time.strftime('%Y-%m-%d')}\n")
    print("| buffers | implementation | ms | largest / smallest | page faults | `torch.compile` / native |")
    print("|---|---|---|---|---|---|")
    for state in found[0]:
        ratios = [process[state]["torch.compile"]["ms"] / process[state]["native"]["ms"] for process in found]
        for name in NAMES:
            times = [process[state][name]["ms"] for process in found]
            faults = [process[state][name]["faults"] for process in found]
            row = f"| {state} | {name} | {min(times):.1f}–{max(times):.1f} | {max(times) / min(times):.2f} "
            ratio = f"{statistics.median(ratios):.1f} ({min(ratios):.1f}–{max(ratios):.1f})" if name == "native" else ""
            print(f"{row}| {min(faults):.0f}–{max(faults):.0f} | {ratio} |")


if __name__ == "__main__":
    main()
