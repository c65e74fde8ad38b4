"""benchmarks/gpu_check.sh with parts that fail, hang or lack their tool, and what its summary makes of logs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from benchmarks import gpu_summary  # noqa: E402

SCRIPT = CHECKOUT / "benchmarks" / "gpu_check.sh"
PARTS = [line.split() for line in re.search(r"PARTS='\n(.*?)'", SCRIPT.read_text(), re.DOTALL)[1].splitlines()]  # type: ignore[index]

Check = Callable[..., "subprocess.Popen[str]"]

#: A Python that runs the summary, and answers for everything else as HANGS, FAILS and RESULT say.
PYTHON = r"""#!/bin/bash
case "$*" in
  *benchmarks.gpu_summary*) exec "$REAL_PYTHON" "$@" ;;
  *importlib.util*) exit 1 ;;
  *"$HANGS"*) echo "it hangs"; sleep 1000 & sleep 1000 ;;
  *"$FAILS"*) echo "FAILED tests/test_x.py::test_y - because"; exit 3 ;;
  *task_aware.train*)
    logs=$(sed 's/.*--out \([^ ]*\).*/\1/' <<<"$*")/logs/part_0
    mkdir -p "$logs"
    printf 'step,train/loss\n59,1.0\n' >"$logs/metrics.csv"
    ;;
esac
echo "ran $*: $RESULT"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The script in a checkout of its own, whose parts may take 8 seconds, of which the last 2 to end."""
    folder = tmp_path / "a checkout"
    (folder / "benchmarks" / "results").mkdir(parents=True)
    for name in ("__init__.py", "gpu_check.sh", "gpu_summary.py", "results/predicted_h100.json"):
        shutil.copy(CHECKOUT / "benchmarks" / name, folder / "benchmarks" / name)
    script = folder / "benchmarks" / "gpu_check.sh"
    text = re.sub(r"(?m)^(\w+ +\w+) +\d+ +\d+$", r"\1 8 8", script.read_text())
    script.write_text(text.replace("GRACE=5", "GRACE=2"))
    return folder


@pytest.fixture
def start(checkout: Path, tmp_path: Path) -> Check:
    """Starts the script with a fake Python, of which calls that hold `hangs` hang and those that hold `fails` fail."""

    def start(
        *arguments: str, hangs: str = "none", fails: str = "none", result: str = "1 passed", **programs: str
    ) -> subprocess.Popen[str]:
        bin_folder = tmp_path / "bin"
        bin_folder.mkdir(exist_ok=True)
        for name, text in {"python": PYTHON, **programs}.items():
            (bin_folder / name).write_text(text)
            (bin_folder / name).chmod(0o755)
        answers = {"REAL_PYTHON": sys.executable, "HANGS": hangs, "FAILS": fails, "RESULT": result}
        environment = {**os.environ, **answers, "PATH": f"{bin_folder}:/usr/bin:/bin", "CUDA_HOME": "/nowhere"}
        return subprocess.Popen(
            [checkout / "benchmarks" / "gpu_check.sh", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=tmp_path,
        )

    return start


def verdicts(out: Path) -> dict[str, str]:
    """Part -> its end, as the summary's first table has it."""
    parts, _ = (out / "summary.md").read_text().split("## Machine")
    rows = re.findall(r"^\| (\w+) \| ([^|]+?) \|", parts, re.MULTILINE)
    return {name: verdict for name, verdict in rows if name != "all"}


def is_running(pid: str) -> bool:
    """Whether there is such a process, other than one that has ended and waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_the_parts_stay_below_ten_minutes_and_leave_eight_files() -> None:
    assert sum(int(seconds) for _, _, seconds, _ in PARTS) < 570
    assert len({log for _, log, _, _ in PARTS}) + len(["benchmarks.json", "summary.md"]) <= 8


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name a folder for the results"),
        (["--fast", "out"], "there is no option --fast"),
        (["--only", "tests,speed", "out"], "there is no part speed; choose among environment build tests"),
        (["out", "--only"], "--only needs the names of parts"),
        (["one", "two"], "give only one folder for the results; got one and two"),
        (["/dev/null"], "cannot create the folder /dev/null"),
    ],
)
def test_a_wrong_call_is_one_sentence(start: Check, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    process = start(*arguments)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 2 and sentence in output and len(output.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a checkout", "bin"]


def test_help_names_the_parts(start: Check) -> None:
    process = start("--help")
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0 and "--dry-run OUT" in output and all(name in output for name, *_ in PARTS)


def test_what_fails_or_hangs_or_lacks_its_tool_is_noted_and_the_next_part_runs(start: Check, tmp_path: Path) -> None:
    only = "environment,tests,profile,memcheck,train_graph"
    process = start("--only", only, "my results", hangs="gpu_environment", fails="tests -m gpu", nvcc="#!/bin/sh")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    out = tmp_path / "my results"
    found = verdicts(out)
    assert found["environment"] == "stopped" and found["tests"] == "failed with status 3"
    assert found["profile"] == "skipped: ncu is not on PATH"
    assert found["memcheck"] == "skipped: compute-sanitizer is not on PATH"
    assert found["train_graph"] == "passed"
    assert found["build"] == "not run"
    assert "tests/test_x.py::test_y" in (out / "summary.md").read_text()
    assert "it hangs" in (out / "machine.log").read_text() and "it hangs" in output
    assert "not passed: environment tests profile memcheck" in output


def test_a_profiler_that_hangs_is_stopped_with_all_that_it_started(start: Check, tmp_path: Path) -> None:
    ncu = f"#!/bin/bash\ntrap '' INT TERM\necho $$ >'{tmp_path}/ncu'\nsleep 1000\nsleep 1000\n"
    process = start("--only", "profile,train", str(tmp_path / "out"), ncu=ncu)
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert verdicts(tmp_path / "out")["profile"] == "stopped" and verdicts(tmp_path / "out")["train"] != "not run"
    assert not is_running((tmp_path / "ncu").read_text().strip())


def test_tests_that_are_all_skipped_have_not_passed(start: Check, tmp_path: Path) -> None:
    sanitizer = {"compute-sanitizer": "#!/bin/sh"}
    process = start("--only", "tests,memcheck", "out", result="9 skipped", **sanitizer)
    output, _ = process.communicate(timeout=60)
    assert verdicts(tmp_path / "out")["tests"] == verdicts(tmp_path / "out")["memcheck"] == "failed with status 1"
    assert 'the output never says "passed"' in output


def test_a_process_that_leaves_its_group_holds_nothing_up(start: Check, tmp_path: Path) -> None:
    ncu = f"#!/bin/bash\nsetsid sleep 30 &\necho $! >'{tmp_path}/left'\necho Duration\n"
    begin = time.monotonic()
    process = start("--only", "profile", "out", ncu=ncu)
    process.communicate(timeout=60)
    assert process.returncode == 1 and time.monotonic() - begin < 28
    os.kill(int((tmp_path / "left").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_it_has(start: Check, tmp_path: Path, number: signal.Signals) -> None:
    process = start("--only", "tests,train,train_graph", "out", hangs="task_aware.train")
    log = tmp_path / "out" / "trainings.log"
    while not (log.exists() and "it hangs" in log.read_text()):
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 130
    found = verdicts(tmp_path / "out")
    assert (found["tests"], found["train"], found["train_graph"]) == ("passed", "interrupted", "not run")


def test_a_second_run_of_one_part_takes_its_place_and_a_whole_run_starts_anew(start: Check, tmp_path: Path) -> None:
    out = tmp_path / "out"
    start("--only", "environment,tests,train_bfloat16", "out", fails="tests -m gpu").communicate(timeout=60)
    (out / "mine.txt").write_text("kept")
    assert verdicts(out)["tests"] == "failed with status 3"
    start("--only=tests", "out").communicate(timeout=60)
    found = verdicts(out)
    assert found["tests"] == "passed" and found["environment"] != "not run"
    assert "test_y" not in (out / "summary.md").read_text()
    process = start("--dry-run", "out")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    found = verdicts(out)
    assert found.pop("build") == "skipped: nvcc is not on PATH, dry run" and set(found.values()) == {"passed, dry run"}
    assert "'ncu' '--profile-from-start'" in (out / "profile.log").read_text()
    assert "racecheck" in (out / "sanitizer.log").read_text()
    assert "cannot measure" in (out / "summary.md").read_text()
    assert (out / "mine.txt").exists() and len(list(out.iterdir())) <= 1 + 8


def row(direction: str, implementation: str, milliseconds: float, copy_share: float) -> dict[str, Any]:
    return {
        **{"operator": "pit_loss", "shape": "mse [12,5,128,628]", "direction": direction, "device": "cuda"},
        **{"implementation": implementation, "milliseconds": milliseconds, "speed": 1.0, "copy_share": copy_share},
        **{"peak_mib": None, "note": ""},
    }


def test_predicted_stands_beside_measured(tmp_path: Path) -> None:
    forward = [
        row("forward", "native", 0.020, 0.60),
        row("forward", "reference", 0.5, 0.02),
        row("forward", "torch.compile of it", 0.04, 0.30),
        row("forward", "torch.compile of the reference", 0.08, 0.15),
    ]
    both = [row("forward + backward", "native", 0.050, 0.69), row("forward + backward", "reference", 2.0, 0.02)]
    benchmarks = [{"extra_info": {"implementations": rows, "copy_bytes_per_second": 3e12}} for rows in (forward, both)]
    (tmp_path / "benchmarks.json").write_text(json.dumps({"benchmarks": [*benchmarks, {"extra_info": {}}]}))
    text, fine = gpu_summary.summary(tmp_path, ["tests"])
    assert fine
    assert "| pit_loss mse [12,5,128,628], forward | 12.9 | 18-22 | 20.0 | 59-72 % | 60 % | 25.00 | 2.00 |" in text
    # (0.050 · 0.69 - 0.020 · 0.60) / (0.050 - 0.020) and (2 - 0.5) / (0.050 - 0.020)
    assert "backward | 19.3 | 21-24 | 30.0 | 80-92 % | 75 % | 50.00 | not measured |" in text
    assert "| mel_mask [12,5,128,628], forward | 20.6 | 24-27 | not measured |" in text


def test_benchmarks_that_were_stopped_are_not_measured(tmp_path: Path) -> None:
    (tmp_path / "benchmarks.json").write_text("")
    text, _ = gpu_summary.summary(tmp_path, [])
    assert "there is no `benchmarks.json` with results from a GPU" in text


def training(name: str, losses: list[float]) -> str:
    header = "epoch,separation/spread,step,train/loss"
    rows = "".join(f"0,,{10 * k + 9},{loss}\n" for k, loss in enumerate(losses))
    return f"==> {name}, at most 33 s\nepoch event\n{header}\n{rows}0,1.5,59,\n\n==> {name}: passed, 20 s\n"


@pytest.mark.parametrize(
    ("graph", "bfloat16", "fine", "found"),
    [
        ([1.0, 0.501], [1.0, 0.6], True, "differ by at most 0.2 %"),
        ([1.0, 0.6], [1.0, 0.6], False, "differ by at most 20 %, 2 % allowed"),
        ([1.0, 0.5], [1.0, float("nan")], False, "not finite"),
    ],
)
def test_trainings_are_compared(
    tmp_path: Path, graph: list[float], bfloat16: list[float], fine: bool, found: str
) -> None:
    curves = {"train": [1.0, 0.5], "train_graph": graph, "train_bfloat16": bfloat16}
    (tmp_path / "trainings.log").write_text("".join(training(*curve) for curve in curves.items()))
    text, was_fine = gpu_summary.summary(tmp_path, list(curves))
    assert found in text and was_fine == fine
    assert gpu_summary.main([str(tmp_path), *curves]) == (0 if fine else 1)


def test_failing_tests_sanitizers_kernels_and_a_part_that_did_not_end(tmp_path: Path) -> None:
    (tmp_path / "tests.log").write_text(
        "==> tests, at most 95 s\n...F\n"
        "FAILED tests/ops/test_glu_pool.py::test_values[cuda-(1, 2)] - AssertionError\n"
        "1 failed, 3 passed, 2 skipped in 61.52s (0:01:01)\n\n==> tests: failed with status 1, 70 s\n"
    )
    (tmp_path / "sanitizer.log").write_text(
        "==> memcheck, at most 50 s\n========= ERROR SUMMARY: 0 errors\n\n==> memcheck: passed, 30 s\n"
        "==> racecheck, at most 45 s\n========= COMPUTE-SANITIZER\n"
    )
    (tmp_path / "profile.log").write_text(
        '==> profile, at most 45 s\n==PROF== Profiling "pair_costs_kernel" - 0: 0%....100% - 8 passes\r\n'
        "  void task_aware::<unnamed>::pair_costs_kernel<float, (int)4>(task_aware::<unnamed>::ForwardParams) "
        "(240, 1, 1)x(256, 1, 1), Context 1, Stream 7, Device 0, CC 9.0\n"
        "    Section: GPU Speed Of Light Throughput\n"
        "    Metric Name             Metric Unit Metric Value\n"
        "    DRAM Throughput                   %        53.27\n"
        "    Duration                         us        16.42\n"
        "    Achieved Occupancy                        %        24.10\n"
    )
    text, _ = gpu_summary.summary(tmp_path, ["tests", "profile", "memcheck", "racecheck"])
    assert "tests: 1 failed, 3 passed, 2 skipped in 61.52s" in text
    assert "  - `FAILED tests/ops/test_glu_pool.py::test_values[cuda-(1, 2)] - AssertionError`" in text
    assert "- memcheck: ERROR SUMMARY: 0 errors\n- racecheck: no verdict" in text
    assert "| racecheck | did not end |  | 45 |" in text
    assert "| pair_costs_kernel | (240, 1, 1)x(256, 1, 1) | 16.42 us | 53.27 % |  | 24.10 % |" in text
