"""`python -m benchmarks.growth`: what it writes, and what becomes of an implementation that is wrong or slow."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from benchmarks.growth import growing  # noqa: E402
from benchmarks.growth.__main__ import QUESTIONS  # noqa: E402

RIGHT = (torch.arange(3.0),)


def part(**runs: object) -> growing.Part:
    """A part of three sizes, whose implementations answer as given; an exception is raised."""

    def make(size: float, without: frozenset[str]) -> growing.Case:
        def answering(answer: object):
            def run():
                if isinstance(answer, Exception):
                    raise answer
                return answer(size) if callable(answer) else answer

            return run

        kept = {name: answering(answer) for name, answer in runs.items() if name not in without}
        return growing.Case(kept, expected=(RIGHT[0].double(),))

    return growing.Part("x", "a part", "sizes", (1, 2, 4), (1,), make, seconds=0.0, most_seconds=0.2)


def grow(part: growing.Part) -> growing.Found:
    found = growing.Found()
    for _ in growing.grow(part, found, quick=False, without=frozenset()):
        pass
    return found


def busy(size: float) -> tuple[torch.Tensor, ...]:
    """Takes long at the second size."""
    end = growing.processor() + (0.3 if size == 2 else 0.0)
    while growing.processor() < end:
        pass
    return RIGHT


def test_what_is_wrong_fails_or_is_slow_is_left_out_and_said():
    answers = {"wrong": (torch.ones(3),), "fails": ImportError("no such library"), "slow": busy}
    found = grow(part(**{growing.NATIVE: RIGHT, **answers}))
    measured = {(point.implementation, point.size) for point in found.points}
    assert measured == {(growing.NATIVE, 1), (growing.NATIVE, 2), (growing.NATIVE, 4), ("slow", 1), ("slow", 2)}
    assert found.notes["wrong"].startswith("left out from 1 on: output 0 is off by")
    assert found.notes["fails"] == "left out from 1 on: ImportError: no such library"
    assert found.notes["slow"].startswith("stopped after 2: 0.3 s")


def test_the_package_must_be_right():
    with pytest.raises(AssertionError, match="a part at 1: output 0 is off by"):
        grow(part(**{growing.NATIVE: (torch.ones(3),)}))
    with pytest.raises(RuntimeError, match="broken"):
        grow(part(**{growing.NATIVE: RuntimeError("broken")}))


def test_a_process_tells_its_own_memory():
    command = growing.Command("benchmarks.growth.reporting", ["this"], lambda: RIGHT)
    assert command() == RIGHT and command.mib is not None and 5 < command.mib < 200  # that of a Python without torch
    with pytest.raises(RuntimeError, match="No module named"):
        growing.Command("no_such_module", [], lambda: RIGHT)()


def test_quick(tmp_path):
    command = [sys.executable, "-m", "benchmarks.growth", "--quick", f"--out={tmp_path}"]
    answer = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "left out" not in answer.stdout
    for question in QUESTIONS:
        assert (tmp_path / f"{question}.png").stat().st_size > 10_000
        with (tmp_path / f"{question}.csv").open(encoding="utf-8", newline="") as file:
            rows = [*csv.DictReader(file)]
        assert {growing.NATIVE} < {row["implementation"] for row in rows}
        assert all(float(row["milliseconds"]) > 0 for row in rows)
    assert "cores" in (tmp_path / "machine.txt").read_text(encoding="utf-8")
