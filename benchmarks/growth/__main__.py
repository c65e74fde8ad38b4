"""How time and memory grow, as pictures and tables: recordings, sources, batches, classes, rooms and cores.

    python -m benchmarks.growth [--out runs/growth] [--only length sources ...]

At each size, all implementations are first compared with the reference in float64 where they compute the same, and then
timed in turn; a point is the median. Time is processor time on one thread, which other programs change less than that
of the clock, except for `cores`, which is by the clock. An implementation other than the package's is stopped at the
size at which a call takes more than some seconds or gigabytes. The whole run takes about a quarter of an hour, most of
it for recordings of up to 24 hours, which lie in a temporary folder of up to 2.8 GB. It writes QUESTION.png and
QUESTION.csv for each question, and machine.txt.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from itertools import groupby
from pathlib import Path

#: The questions, in order.
QUESTIONS = ("length", "sources", "batch", "classes", "rooms", "cores")


def machine() -> str:
    """Describes where this was measured."""
    from task_aware.base.threads import running_elsewhere

    from .operators import absent, versions

    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    flags = next((line.split() for line in _lines("/proc/cpuinfo") if line.startswith("flags")), [])
    vectors = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    lines = [
        f"{time.strftime('%Y-%m-%d')}, {cpu} ({vectors}), {os.cpu_count()} cores",
        f"threads of other programs at the start: {running_elsewhere()}",
        "Python " + platform.python_version() + "".join(f", {name} {version}" for name, version in versions().items()),
    ]
    return "\n".join([*lines, *absent()])


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/growth"), metavar="DIR", help="default: runs/growth")
    add("--only", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), metavar="QUESTION",
        help=f"{', '.join(QUESTIONS)}; default: all")  # fmt: skip
    add(
        "--quick",
        action="store_true",
        help="tiny sizes, without torch.compile: checks the results within half a minute",
    )
    options = parser.parse_args(arguments)

    # not above: help answers without torch
    import torch
    from tqdm import tqdm

    from . import models, operators, recordings
    from .drawing import draw
    from .growing import Found, Part, grow, write

    without = frozenset([operators.COMPILED] if options.quick else [])  # compiling takes minutes
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "machine.txt").write_text(machine() + "\n", encoding="utf-8")
    with recordings.scratch_folder() as scratch:
        parts = [*recordings.parts(Path(scratch)), *operators.parts(), *models.parts()]
        parts = sorted((p for p in parts if p.question in options.only), key=lambda p: QUESTIONS.index(p.question))
        parts = [part for part in parts if part.quick or not options.quick]
        total = sum(len(part.quick if options.quick else part.sizes) for part in parts)
        with tqdm(total=total, unit="size") as bar:
            for question, its_parts in groupby(parts, lambda part: part.question):
                answers: list[tuple[Part, Found]] = []
                for part in its_parts:
                    bar.set_description(part.title)
                    torch.set_num_threads(1)
                    answers.append((part, Found()))
                    for _ in grow(part, answers[-1][1], quick=options.quick, without=without):
                        bar.update()
                        write(
                            options.out / f"{question}.csv", [point for _, found in answers for point in found.points]
                        )
                draw(options.out / f"{question}.png", answers)
                for part, found in answers:
                    for name, note in found.notes.items():
                        bar.write(f"{part.title}: {name} is {note}")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
