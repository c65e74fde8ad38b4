"""The runs of a study: commands, each in a process of its own, one after another."""

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
from task_aware.base.errors import Terminated
from task_aware.training.folder import last_checkpoint

#: A server process that has imported everything; each run is forked from it, and may fail without the others.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [f"task_aware.{name}" for name in ("training.frozen", "training.separator", "training.denoiser", "study.tables")]
)


@dataclass(frozen=True)
class Job:
    """A command that is done once `folder` holds a `metrics.json`.

    Attributes:
        title: printed when it starts.
        folder: output folder of the command.
        command: module of `task_aware`.
        arguments: arguments of the command.
        run: the key of `RUNS` that is trained or scored.
        test: name of the further data folder to score the run on; empty for the run itself.
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
        """Runs or resumes the command, with its output in `folder/log.txt`.

        Returns:
            The reason if it failed, otherwise an empty string.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "log.txt"
        log.touch()  # exists even if the process dies before it writes
        resume = ["--resume"] if last_checkpoint(self.folder).is_file() else []
        process = PROCESSES.Process(target=_work, args=(self.command, [*self.arguments, *resume], log))
        process.start()
        try:
            process.join()
        except Terminated:
            process.terminate()
            process.join()
            raise
        except KeyboardInterrupt:
            process.join()  # the terminal interrupts it as well
            raise
        if self.is_done:
            return ""
        if process.exitcode == 130:
            raise KeyboardInterrupt
        lines = log.read_text(errors="replace").strip().splitlines()
        return f"exit status {process.exitcode}: {lines[-1][:300] if lines else 'no output'} (see {log})"


def _work(command: str, arguments: list[str], log: Path) -> None:
    """Runs `python -m task_aware.COMMAND ARGUMENTS` in this process; appends its output to `log`."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print("$", shlex.join(["python", "-m", f"task_aware.{command}", *arguments]), flush=True)
    module = importlib.import_module(f"task_aware.{command}")
    sys.argv = [str(module.__file__), *arguments]
    sys.modules["__main__"] = module  # what Lightning restarts for further devices
    cli.run(module.main)


def _end_with_parent() -> None:
    """Ends this run if the study is killed, because a restarted study would write to the same folder."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run_all(jobs: Sequence[Job]) -> list[str]:
    """Runs the jobs one after another, even if some fail; returns which failed, and why."""
    failed = []
    for number, job in enumerate(jobs, start=1):
        print(f"[{number}/{len(jobs)}] {job.title}: ", end="", flush=True)
        if job.is_done:
            print("already done", flush=True)
            continue
        start = time.monotonic()
        reason = job.work()
        print(f"failed, {reason}" if reason else f"{(time.monotonic() - start) / 60:.1f} min", flush=True)
        if reason:
            failed.append(f"{job.title}: {reason}")
    return failed
