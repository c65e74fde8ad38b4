"""Idle threads wait only on cores that nobody else needs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from task_aware.base import threads


@pytest.mark.parametrize(
    ("elsewhere", "asked", "expected"),
    [
        (0, {}, {"GOMP_SPINCOUNT": threads.SPINS}),
        (1, {}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        (3, {"OMP_NUM_THREADS": "1"}, {"GOMP_SPINCOUNT": threads.SPINS}),
        (4, {"OMP_NUM_THREADS": "1"}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        (0, {"OMP_NUM_THREADS": "8"}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        (0, {"OMP_NUM_THREADS": "2,1"}, {"GOMP_SPINCOUNT": threads.SPINS}),
        (0, {"OMP_WAIT_POLICY": "ACTIVE"}, {}),
        (1, {"GOMP_SPINCOUNT": "7"}, {}),
    ],
)
def test_threads_wait_only_on_free_cores(
    monkeypatch: pytest.MonkeyPatch, elsewhere: int, asked: dict[str, str], expected: dict[str, str]
) -> None:
    monkeypatch.setattr(threads, "running_elsewhere", lambda: elsewhere)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    environment = dict(asked)
    threads.choose_waiting(environment)
    assert environment == asked | expected


@pytest.mark.parametrize(("text", "count"), [("0.65 1.68 1.75 4/77 18104\n", 3), ("0.1 0.1 0.1 0/1 1\n", 0), ("", 1)])
def test_programs_that_run_are_counted_without_this_one(tmp_path: Path, text: str, count: int) -> None:
    loadavg = tmp_path / "loadavg"
    loadavg.write_text(text)
    assert threads.running_elsewhere(loadavg) == count


def test_elsewhere_without_the_kernels_count_one_is_assumed(tmp_path: Path) -> None:
    assert threads.running_elsewhere(tmp_path / "none") == 1
