"""`python -m benchmarks.gpu_summary OUT PART...`: writes OUT/summary.md from the logs of `gpu_check.sh` in OUT.

Exits with status 1 if trainings that should agree do not, or if a loss is not finite.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREDICTIONS = Path(__file__).parent / "results" / "predicted_h100.json"

#: Largest relative difference between the curves of two equal trainings; sums in varying order make them drift apart.
AGREEMENT = 0.02

#: The trainings and what is expected of each.
TRAININGS = {"train": "", "train_graph": "agrees with train", "train_bfloat16": "finite"}

DRY_RUN = """Parts of this check were a dry run without a GPU, which cannot measure: results and times of the CUDA
kernels, ncu's counters, compute-sanitizer's verdicts, and trainings on a GPU.

"""

#: Metrics of ncu's report that the table of kernels shows.
METRICS = {
    "Duration": "duration",
    "DRAM Throughput": "DRAM",
    "L1/TEX Hit Rate": "L1 hits",
    "Achieved Occupancy": "occupancy",
}

Rows = dict[tuple[str, str, str], dict[str, dict[str, Any]]]
Curve = dict[int, float]


@dataclass
class Section:
    """The output of a part and how it ended; the verdict is None if it did not end."""

    lines: list[str]
    limit: int
    dry: bool = False
    verdict: str | None = None
    seconds: int | None = None


def read_sections(folder: Path) -> dict[str, Section]:
    """Reads the last run of every part that has a log in `folder`."""
    sections: dict[str, Section] = {}
    for log in sorted(folder.glob("*.log")):
        current = None
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if begin := re.fullmatch(r"==> (\w+), at most (\d+) s(, dry run)?", line):
                current = sections[begin[1]] = Section([], int(begin[2]), dry=bool(begin[3]))
            elif current and (end := re.fullmatch(r"==> \w+: (.+), (\d+) s", line)):
                current.verdict, current.seconds = end[1], int(end[2])
                current = None
            elif current:
                current.lines.append(line)
    return sections


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Formats a table as lines of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in lines]


def parts_table(sections: Mapping[str, Section], parts: Sequence[str]) -> list[str]:
    rows = []
    for part in parts:
        section = sections.get(part)
        if section is None:
            rows.append((part, "not run", "", ""))
        else:
            seconds = "" if section.seconds is None else str(section.seconds)
            reason = [line for line in section.lines if line.startswith("skipped: ")]
            verdict = (reason or [section.verdict or "did not end"])[-1] + (", dry run" if section.dry else "")
            rows.append((part, verdict, seconds, str(section.limit)))
    rows.append(("all", "", str(sum(s.seconds or 0 for name, s in sections.items() if name in parts)), ""))
    return table(("part", "", "seconds", "at most"), rows)


def read_rows(folder: Path) -> Rows:
    """Reads the benchmarks' results on a GPU: (operator, shape, direction) -> implementation -> row."""
    try:
        benchmarks = json.loads((folder / "benchmarks.json").read_text())["benchmarks"]
    except (OSError, ValueError, KeyError):
        return {}
    rows: Rows = {}
    for benchmark in benchmarks:
        for row in benchmark["extra_info"].get("implementations", []):
            if row["device"] == "cuda":
                row["copy_bytes_per_second"] = benchmark["extra_info"]["copy_bytes_per_second"]
                rows.setdefault((row["operator"], row["shape"], row["direction"]), {})[row["implementation"]] = row
    return rows


def microseconds(rows: Rows, operator: str, shape: str, direction: str) -> dict[str, float]:
    """Time of each implementation; for the backward alone, the difference to the forward."""
    if direction != "backward":
        return {name: 1000 * row["milliseconds"] for name, row in rows.get((operator, shape, direction), {}).items()}
    forward = microseconds(rows, operator, shape, "forward")
    both = microseconds(rows, operator, shape, "forward + backward")
    return {name: both[name] - forward[name] for name in both if name in forward}


def copy_share(rows: Rows, operator: str, shape: str, direction: str) -> float | None:
    """Bandwidth of the native operator's minimal traffic, relative to that of a copy."""

    def copied(direction: str) -> float:
        """Microseconds that a copy of the same traffic takes."""
        row = rows[operator, shape, direction]["native"]
        return 1000 * row["milliseconds"] * row["copy_share"]

    time = microseconds(rows, operator, shape, direction).get("native")
    if not time:
        return None
    if direction == "backward":
        return (copied("forward + backward") - copied("forward")) / time
    return copied(direction) / time


def ratio(times: Mapping[str, float], beginning: str) -> str:
    """Time of the fastest implementation whose name begins so, relative to the native one."""
    others = [time for name, time in times.items() if name.startswith(beginning) and "TF32" not in name]
    return f"{min(others) / times['native']:.2f}" if others and times.get("native") else "not measured"


def predictions_table(rows: Rows) -> list[str]:
    predictions = json.loads(PREDICTIONS.read_text())
    lines = []
    for row in predictions["operators"]:
        key = row["operator"], row["shape"], row["direction"]
        times = microseconds(rows, *key)
        share = copy_share(rows, *key)
        lines.append(
            (
                "{} {}, {}".format(*key),
                f"{row['floor_us']:g}",
                "{:g}-{:g}".format(*row["us"]),
                f"{times['native']:.1f}" if "native" in times else "not measured",
                "{}-{} %".format(*row["of_copy_percent"]),
                "not measured" if share is None else f"{100 * share:.0f} %",
                ratio(times, "reference"),
                ratio(times, "torch.compile"),
            )
        )
    header = ("operator", "floor µs", "predicted µs", "measured µs", "predicted of copy", "measured of copy")
    return [
        f"{predictions['what']} {predictions['made']}. Of copy: bandwidth of the minimal traffic, relative to that of "
        "a copy. Backward: the difference between forward + backward and forward.",
        "",
        *table((*header, "eager / native", "torch.compile / native"), lines),
    ]


def rows_table(rows: Rows) -> list[str]:
    if not rows:
        return ["Not measured: there is no `benchmarks.json` with results from a GPU."]
    bandwidth = next(iter(next(iter(rows.values())).values()))["copy_bytes_per_second"]
    lines = []
    for (operator, shape, direction), implementations in rows.items():
        for name, row in implementations.items():
            numbers = (
                f"{row['milliseconds']:.4f}",
                f"{row['speed']:.2f}",
                "" if row["copy_share"] is None else f"{100 * row['copy_share']:.1f} %",
                "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}",
            )
            lines.append((f"{operator} {shape}, {direction}", name, *numbers, row["note"]))
    header = ("", "implementation", "median ms", "x reference", "of copy", "peak MiB", "")
    return [f"A copy reaches {bandwidth / 1e12:.2f} TB/s.", "", *table(header, lines)]


def kernels_table(section: Section | None) -> list[str]:
    """Formats the kernels in ncu's report, in launch order."""
    kernels: list[dict[str, str]] = []
    for line in section.lines if section else ():
        if launched := re.match(r"\s+.*?(\w+_kernel)\b.* (\(\d+, \d+, \d+\)x\(\d+, \d+, \d+\)), Context", line):
            kernels.append({"kernel": launched[1], "grid": launched[2]})
        elif kernels and (metric := re.match(r"\s+(\S.*?)\s{2,}(\S+)\s+([\d.,]+)\s*$", line)) and metric[1] in METRICS:
            kernels[-1].setdefault(metric[1], f"{metric[3]} {metric[2]}")
    if not kernels:
        return ["Not measured: no kernel was profiled."]
    cells = [(k["kernel"], k["grid"], *(k.get(metric, "") for metric in METRICS)) for k in kernels]
    return table(("kernel", "blocks x threads", *METRICS.values()), cells)


def failures(sections: Mapping[str, Section], parts: Sequence[str]) -> list[str]:
    """Lists the failing tests of each part."""
    lines = []
    for part in parts:
        section = sections.get(part)
        written = section.lines if section else []
        failed = [line for line in written if re.match(r"(FAILED|ERROR) (tests|benchmarks)/", line)]
        counts = [line.strip("= ") for line in written if re.search(r" in \d+(\.\d+)?s\b", line)]
        if failed or counts:
            lines += [f"- {part}: {counts[-1] if counts else 'no count'}", *(f"  - `{line[:240]}`" for line in failed)]
    return lines or ["Not measured."]


def sanitizer_verdicts(sections: Mapping[str, Section]) -> list[str]:
    lines = []
    for part in ("memcheck", "racecheck"):
        section = sections.get(part)
        found = [line.strip("= ") for line in section.lines if re.match(r"=+ .*SUMMARY:", line)] if section else []
        lines.append(f"- {part}: {'; '.join(found) or 'no verdict'}")
    return lines


def read_curve(section: Section | None) -> Curve:
    """Reads `train/loss` by step from the curves in a training's log."""
    lines = section.lines if section else []
    start = next((k for k, line in enumerate(lines) if "train/loss" in line.split(",")), None)
    if start is None:
        return {}
    rows = csv.DictReader(line for line in lines[start:] if line.count(",") == lines[start].count(","))
    return {int(row["step"]): float(row["train/loss"]) for row in rows if row["train/loss"]}


def distance(curve: Curve, other: Curve) -> float:
    """Largest relative difference between two curves at their common steps; infinite if there are none."""
    steps = curve.keys() & other.keys()
    values = [abs(curve[k] - other[k]) / max(abs(curve[k]), 1e-12) for k in steps]
    return math.inf if not values or any(math.isnan(value) for value in values) else max(values)


def trainings_table(sections: Mapping[str, Section]) -> tuple[list[str], bool]:
    """Formats the trainings' losses with what is expected, and says whether all that ran are as expected."""
    curves = {name: read_curve(sections.get(name)) for name in TRAININGS}
    rows: list[tuple[str, ...]] = []
    fine = True
    for name, expected in TRAININGS.items():
        curve = curves[name]
        if not curve:
            rows.append((name, "not measured", "", expected, ""))
            continue
        steps = sorted(curve)
        good, found = all(map(math.isfinite, curve.values())), ""
        if not good:
            found = "not finite"
        elif name == "train_graph" and curves["train"]:
            apart = distance(curves["train"], curve)
            good = apart <= AGREEMENT
            found = f"differ by at most {100 * apart:.2g} %, {100 * AGREEMENT:g} % allowed"
        fine &= good
        losses = [f"{curve[step]:.5g} (step {step})" for step in (steps[0], steps[-1])]
        rows.append((name, *losses, expected, found or "finite"))
    return table(("training", "first loss", "last loss", "expected", "found"), rows), fine


def summary(folder: Path, parts: Sequence[str]) -> tuple[str, bool]:
    """Writes the text of `summary.md`, and says whether the trainings are as expected."""
    sections = read_sections(folder)
    rows = read_rows(folder)
    environment = sections["environment"].lines if "environment" in sections else []
    facts = [line for line in environment if re.match(r"commit |Python |torch|TF32|missing|.*, sm_\d+", line)]
    on_gpu = {name: section for name, section in sections.items() if not section.dry}
    trainings, fine = trainings_table(on_gpu)
    blocks = {
        "Parts": parts_table(sections, parts),
        "Machine": [f"- {line}" for line in facts] or ["Not recorded."],
        "Predicted and measured": predictions_table(rows),
        "Failing tests": failures(sections, parts),
        "Sanitizer": sanitizer_verdicts(on_gpu),
        "Trainings": trainings,
        "Kernels, by ncu": kernels_table(on_gpu.get("profile")),
        "Benchmarks": rows_table(rows),
    }
    text = "".join(f"## {title}\n\n" + "\n".join(lines) + "\n\n" for title, lines in blocks.items())
    remark = DRY_RUN if len(on_gpu) < len(sections) else ""
    return f"# Check on a GPU\n\n{remark}{text.rstrip()}\n", fine


def main(arguments: Sequence[str]) -> int:
    folder = Path(arguments[0])
    text, fine = summary(folder, arguments[1:])
    written = folder / ".summary.md"  # renamed at the end, so that a run killed here keeps the previous summary
    written.write_text(text, encoding="utf-8")
    os.replace(written, folder / "summary.md")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
