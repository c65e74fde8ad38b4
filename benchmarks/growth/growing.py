"""Measures how time and memory grow: at each size all implementations are checked, then timed in turn."""

from __future__ import annotations

import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.measuring import peak_memory
from benchmarks.side_by_side import Outputs, disagreement

ROOT = Path(__file__).resolve().parents[2]

#: The name of what everything else is compared with. It is never stopped.
NATIVE = "task_aware"


class Point(NamedTuple):
    """One implementation at one size. Memory is None where the system does not tell it."""

    title: str
    size: float
    implementation: str
    milliseconds: float
    peak_mib: float | None
    rounds: int


@dataclass
class Case:
    """What runs at one size.

    Attributes:
        runs: by implementation, what to call. The first call's outputs are checked.
        expected: what they must be; None if there is nothing to compare with.
        tolerance: largest distance of an output from that, relative to its norm.
        unlike: implementations that compute something else, and are not compared.
    """

    runs: Mapping[str, Callable[[], Outputs]]
    expected: Outputs | None = None
    tolerance: float = 1e-4
    unlike: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Part:
    """A question: how does something grow with `axis`?

    Attributes:
        question: the word for `--only`, and the stem of the files; several parts may answer one question.
        title: what is plotted.
        axis: what grows, with its unit.
        sizes, quick: sizes of a whole run, and of `--quick`.
        make: the case of a size, without the implementations that are named.
        seconds: about as long should the rounds at one size take.
        most_seconds, most_mib: an implementation that needs more for one call is stopped there.
        ticks: what to write at the sizes; default: the numbers.
        by_the_clock: whether time is that of the clock, not that of processors.
    """

    question: str
    title: str
    axis: str
    sizes: Sequence[float]
    quick: Sequence[float]
    make: Callable[[float, frozenset[str]], Case]
    seconds: float = 2.0
    most_seconds: float = 3.0
    most_mib: float = 4096.0
    ticks: Sequence[str] = ()
    by_the_clock: bool = False


@dataclass
class Found:
    """What was found of a part: the points, and of what is left out or stopped, why."""

    points: list[Point] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)


class Command:
    """A command in a process of its own, whose memory it reports.

    Args:
        module, arguments: what `python -m` runs.
        result: reads what came out.
        cores: how many cores it may use, with a thread of OpenMP each; default: any, with one thread.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], result: Callable[[], Outputs], cores: int | None = None
    ) -> None:
        self.command = [sys.executable, "-m", "benchmarks.growth.reporting", module, *arguments]
        self.result = result
        self.cores = cores
        self.mib: float | None = None

    def __call__(self) -> Outputs:
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.cores or 1)}
        limit = None
        if self.cores is not None:  # threads that decode are none of OpenMP's
            limit = partial(os.sched_setaffinity, 0, sorted(os.sched_getaffinity(0))[: self.cores])
        answer = subprocess.run(
            self.command, cwd=ROOT, env=environment, preexec_fn=limit, capture_output=True, text=True
        )
        if answer.returncode:
            raise RuntimeError((answer.stderr.strip() or "it said nothing").splitlines()[-1])
        self.mib = json.loads(answer.stdout.splitlines()[-1])
        return self.result()


def cores_of_machine() -> list[int]:
    """1, 2, 4, ... as far as there are as many cores."""
    return [1 << k for k in range((os.cpu_count() or 1).bit_length())]


def processor() -> float:
    """Processor time of this process and of those that it waited for, seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def first_calls(part: Part, size: float, case: Case, found: Found) -> dict[str, tuple[float, float | None]]:
    """Calls each implementation of a case, and checks its outputs: its time in seconds and memory in MiB.

    One that fails or disagrees is noted and left out; if it is the native one, that is an AssertionError.
    """
    taken = {}
    clock = time.perf_counter if part.by_the_clock else processor
    for name, run in case.runs.items():
        start = clock()
        try:
            outputs = run()
            problem = ""
            if case.expected is not None and name not in case.unlike:
                problem = disagreement(outputs, case.expected, case.tolerance)
        except Exception as error:
            if name == NATIVE:
                raise
            problem = f"{type(error).__name__}: {(str(error) or 'no reason given').splitlines()[0]}"
        seconds = clock() - start
        assert name != NATIVE or not problem, f"{part.title} at {size:g}: {problem}"
        if problem:
            found.notes[name] = f"left out from {size:g} on: {problem}"
        elif isinstance(run, Command):
            taken[name] = seconds, run.mib
        else:
            taken[name] = seconds, peak_memory(run, "cpu")
    return taken


def grow(part: Part, found: Found, *, quick: bool, without: frozenset[str]) -> Iterator[float]:
    """Adds what is measured of a part, but for the implementations `without`, and yields each size that is done."""
    clock = time.perf_counter if part.by_the_clock else processor
    for size in part.quick if quick else part.sizes:
        case = part.make(size, without | frozenset(found.notes))
        first = first_calls(part, size, case, found)
        in_processes = all(isinstance(run, Command) for run in case.runs.values())
        times = {name: [seconds] if in_processes else [] for name, (seconds, _) in first.items()}
        a_round, rounds = sum(seconds for seconds, _ in first.values()), 0 if in_processes else 1
        if not quick:
            rounds = max(rounds, min(5, round(part.seconds / a_round)))
            if not in_processes:  # first calls compile, and find no memory: a round tells how many fit
                begin = clock()
                for name in times:
                    case.runs[name]()
                rounds = max(3, min(15, round(part.seconds / (clock() - begin))))
        for _ in range(rounds):
            for name, taken in times.items():
                start = clock()
                case.runs[name]()
                taken.append(clock() - start)
        for name, taken in times.items():
            seconds, mib = statistics.median(taken), first[name][1]
            found.points.append(Point(part.title, size, name, 1000 * seconds, mib, len(taken)))
            if name != NATIVE and (seconds > part.most_seconds or (mib or 0) > part.most_mib):
                found.notes[name] = f"stopped after {size:g}: {seconds:.1f} s and {mib or 0:.0f} MiB a call"
        yield size


def write(path: Path, points: Sequence[Point]) -> None:
    """Writes the numbers as a table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(Point._fields)
        for title, size, name, milliseconds, mib, rounds in points:
            memory = "" if mib is None else f"{mib:.1f}"
            table.writerow([title, f"{size:g}", name, f"{milliseconds:.4g}", memory, rounds])
