"""The runs of a study: commands in processes of their own, one after another, each until its results are there."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shlex
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from task_aware.base import cli
from task_aware.training.loop import last_checkpoint

#: Started once, with everything imported; each run is a process that splits off from it, and may fail alone.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["task_aware.train_sep", "task_aware.study.tables"])


@dataclass(frozen=True)
class Job:
    """A command to run until `folder` has its `metrics.json`.

    Attributes:
        run: the key of `RUNS` that it trains or scores.
        test: name of the further folder that it scores the run on; empty for the run itself.
    """

    title: str
    folder: Path
    command: str
    arguments: tuple[str, ...]
    run: str = ""
    test: str = ""

    @property
    def is_done(self) -> bool:
        return (self.folder / "metrics.json").is_file()

    def work(self) -> str:
        """Runs the command, or goes on with it; returns why it failed, empty where it did not.

        Its output goes to `folder/log.txt`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "log.txt"
        log.touch()  # also where the process dies before it writes
        resume = ["--resume"] if last_checkpoint(self.folder).is_file() else []
        process = PROCESSES.Process(target=_work, args=(self.command, [*self.arguments, *resume], log))
        process.start()
        try:
            process.join()
        except KeyboardInterrupt:
            process.join()  # the terminal has interrupted it too
            raise
        if self.is_done:
            return ""
        if process.exitcode == 130:
            raise KeyboardInterrupt
        lines = log.read_text(errors="replace").strip().splitlines()
        return f"exit status {process.exitcode}: {lines[-1][:300] if lines else 'no output'} (see {log})"


def _work(command: str, arguments: list[str], log: Path) -> None:
    """A process' work: `python -m task_aware.COMMAND ARGUMENTS`, its output at the end of `log`."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print("$", shlex.join(["python", "-m", f"task_aware.{command}", *arguments]), flush=True)
    module = importlib.import_module(f"task_aware.{command}")
    sys.argv = [str(module.__file__), *arguments]
    sys.modules["__main__"] = module  # what Lightning starts again for further devices
    cli.run(module.main)


def _end_with_parent() -> None:
    """Two processes must not write to one folder: where the command is killed, its run ends too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run_all(jobs: Sequence[Job]) -> list[str]:
    """Runs the jobs one after another, whatever becomes of each; returns what failed and why."""
    failed = []
    for number, job in enumerate(jobs, start=1):
        print(f"[{number}/{len(jobs)}] {job.title}: ", end="", flush=True)
        if job.is_done:
            print("done before", flush=True)
            continue
        start = time.monotonic()
        reason = job.work()
        print(f"failed, {reason}" if reason else f"{(time.monotonic() - start) / 60:.1f} min", flush=True)
        if reason:
            failed.append(f"{job.title}: {reason}")
    return failed
