"""Runs cases in a process of their own, so that one that hangs or ends the process is reported, and the rest go on.

A case is a function of (kind, seed, number) alone. It must end in a result or in one sentence.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import NamedTuple

#: What is fuzzed, each by the module of its name: `prepare(folder)` makes what is mutated and returns a function of a
#: generator and an empty folder, a case, which raises what the doors raise. `is_sentence` says which errors are meant.
KINDS = ("tables", "recordings", "options", "checkpoints", "imports", "caches", "runs")

#: Bytes by which memory may grow beyond what the process has after its first case.
GROWTH = 1 << 30

#: Seconds for imports and for making what is mutated.
START_SECONDS = 300

RESULT, SENTENCE, FAILURE = "result", "sentence", "failure"


class Outcome(NamedTuple):
    """How a case ended: in what, after how many seconds, in which words, and the growth of memory so far in bytes."""

    case: int
    ended: str
    seconds: float
    text: str = ""
    growth: int = 0


def run(
    kind: str, cases: Iterable[int], *, seed: int = 0, limit: float = 10.0, keep: Path | None = None
) -> Iterator[Outcome]:
    """Yields the outcome of each case. One that takes longer than `limit` seconds is a failure.

    Args:
        kind: one of KINDS, or the name of another such module.
        cases: their numbers.
        seed: another seed gives other cases.
        limit: seconds.
        keep: a folder for the files of the cases, to look at them; by default they are removed.
    """
    todo = list(cases)
    context = multiprocessing.get_context("spawn")
    while todo:
        receiver, sender = context.Pipe(duplex=False)
        with tempfile.NamedTemporaryFile() as said:
            process = context.Process(target=_work, args=(kind, seed, todo, sender, said.name, keep), daemon=True)
            process.start()
            sender.close()
            try:
                ready = receiver.poll(START_SECONDS) and _received(receiver)
                if not ready:
                    raise RuntimeError(f"{kind} cannot be prepared:\n{Path(said.name).read_text(errors='replace')}")
                while todo:
                    if receiver.poll(limit):
                        yield receiver.recv()
                    else:
                        yield Outcome(
                            todo[0], FAILURE, limit, f"takes longer than {limit:g} s\n{_stacks(process, said.name)}"
                        )
                        del todo[0]
                        break
                    del todo[0]
            except EOFError:
                process.join()
                text = Path(said.name).read_text(errors="replace")
                if not todo:
                    raise
                yield Outcome(
                    todo[0], FAILURE, 0.0, f"ended the process with status {process.exitcode}\n{text[-3000:]}"
                )
                del todo[0]
            finally:
                process.kill()
                process.join()
                receiver.close()


def _received(receiver: Connection) -> object:
    try:
        return receiver.recv()
    except EOFError:
        return None


def _stacks(process: multiprocessing.process.BaseProcess, said: str) -> str:
    """Where the threads of a process are."""
    os.kill(process.pid or 0, signal.SIGUSR1)
    time.sleep(1.0)
    return Path(said).read_text(errors="replace")[-3000:]


def _work(kind: str, seed: int, cases: list[int], sender: Connection, said: str, keep: Path | None) -> None:
    """Runs the cases in this process; what they write to standard error goes to the file `said`."""
    ctypes.CDLL(None).mallopt(-8, 2)  # M_ARENA_MAX: otherwise each thread reserves 64 MiB of addresses
    stderr = os.open(said, os.O_RDWR | os.O_APPEND)
    os.dup2(stderr, 2)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    warnings.simplefilter("error", RuntimeWarning)  # of numpy: numbers that are none
    module = importlib.import_module(f"fuzz.{kind}")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        case = module.prepare(Path(folder))
        before = None
        sender.send("ready")
        for number in cases:
            own = (keep or Path(folder)) / f"case_{number}"
            own.mkdir(parents=True)
            os.ftruncate(stderr, 0)
            started = time.perf_counter()
            ended, text = RESULT, ""
            try:
                case(Random(f"{kind} {seed} {number}"), own)
            except BaseException as error:  # whatever it is, it is the outcome
                ended, text = _judge(error, module.is_sentence)
            seconds = time.perf_counter() - started
            if "Traceback" in (printed := os.pread(stderr, 20000, 0).decode(errors="replace")):
                ended, text = FAILURE, f"printed a traceback\n{printed}"
            if before is None:
                before = _memory()
                hard = resource.getrlimit(resource.RLIMIT_AS)[1]
                resource.setrlimit(resource.RLIMIT_AS, (_addresses() + GROWTH, hard))
            sender.send(Outcome(number, ended, seconds, text, max(0, _memory() - before)))
            if keep is None:
                _remove(own)


def _judge(error: BaseException, is_sentence) -> tuple[str, str]:  # type: ignore[no-untyped-def]
    text = str(error)
    if is_sentence(error) and text.strip() and "allocate" not in text and "emory" not in text:
        return SENTENCE, text
    return FAILURE, "".join(traceback.format_exception(error))[-6000:]


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _addresses() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    folder.rmdir()
