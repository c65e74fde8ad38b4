"""The assignment that CPU and GPU share, run by lanes out of step: no GPU is needed to see a race."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
COMPILER = shutil.which("c++") or shutil.which("g++")


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_lanes_that_run_apart_agree_with_one_and_do_not_race(tmp_path: Path) -> None:
    program = tmp_path / "assignment_lanes"
    source = Path(__file__).with_name("assignment_lanes.cpp")
    command = [COMPILER, "-std=c++20", "-O1", "-g", "-pthread", "-fsanitize=thread", f"-I{CHECKOUT / 'csrc'}"]
    built = subprocess.run([*command, source, "-o", program], capture_output=True, text=True)
    if "libtsan" in built.stderr or "unsupported option" in built.stderr:
        pytest.skip("the compiler has no thread sanitizer")
    assert built.returncode == 0, built.stderr
    answer = subprocess.run([program], capture_output=True, text=True, timeout=300)
    if "unexpected memory mapping" in answer.stderr:
        pytest.skip("the thread sanitizer does not run under this kernel")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "0"
