"""`python tests/killed`: kills commands at random moments, starts them again, and compares what comes out.

Each command first runs undisturbed. Then it is started and killed until 25 of it have been killed and one has come to
its end, whose results must be those of the first. After each kill, no file may be half-written under its final name.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from commands import Command, commands, digests, half_written

from task_aware.synthesis import builtin_corpus


def start(command: Command, out: Path) -> subprocess.Popen[bytes]:
    """Starts a command, or starts it again on what it left; its own processes form a group."""
    name, *arguments = command.arguments
    given = [sys.executable, "-m", f"task_aware.{name}", *arguments, *command.again(out), f"--out={out}"]
    out.parent.mkdir(parents=True, exist_ok=True)
    log = (out.parent / f"{out.name}.log").open("ab")
    return subprocess.Popen(given, stdout=log, stderr=log, start_new_session=True)


def kill_and_compare(name: str, command: Command, folder: Path, kills: int, seed: int) -> bool:
    """Runs, kills and compares one command; says what happened, and returns whether all was well."""
    begin = time.monotonic()
    undisturbed = folder / name / "out"
    if start(command, undisturbed).wait():
        print(f"{name}: the undisturbed run failed; see {undisturbed}.log", flush=True)
        return False
    seconds = time.monotonic() - begin
    wanted = digests(command, undisturbed)
    chance = random.Random(f"{name} {seed}")
    killed = ended = 0
    faults: list[str] = []
    while killed < kills:
        out = folder / f"{name}{ended}" / "out"
        begin, is_fresh = time.monotonic(), not out.exists()
        process = start(command, out)
        try:
            status = process.wait(chance.uniform(0.5, 1.1) * seconds)  # before that it only imports
            if is_fresh:
                seconds = time.monotonic() - begin  # other programs come and go
        except subprocess.TimeoutExpired:
            # half of the time only the process that the user sees, as the kernel does where memory ends
            (os.kill if chance.random() < 0.5 else os.killpg)(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            print(f"{name}: killed {killed} times, {ended} runs came to their end", flush=True)
            faults += [f"after kill {killed}, {fault}" for fault in half_written(out)]
            if digests(command, out) != wanted:
                continue
            status = 0  # it had written everything, and was about to end
        ended += 1
        faults += compare(out, wanted, digests(command, out), status)
        if not faults:
            shutil.rmtree(out.parent)
    print(
        f"{name}: {seconds:.1f} s undisturbed, {len(wanted)} files compared; {killed} kills, "
        f"{ended} runs came to their end, {len(faults)} faults",
        flush=True,
    )
    for fault in faults:
        print(f"  {fault}", flush=True)
    return not faults


def compare(out: Path, wanted: dict[str, str], found: dict[str, str], status: int) -> list[str]:
    """What differs from the undisturbed run."""
    faults = [f"{out}: exit status {status}"] if status else []
    faults += [f"{out}: {path} is missing" for path in wanted.keys() - found.keys()]
    faults += [f"{out}: {path} is left over" for path in found.keys() - wanted.keys()]
    faults += [f"{out}: {path} differs" for path in sorted(wanted.keys() & found.keys()) if wanted[path] != found[path]]
    faults += [f"{out}: the temporary {path.relative_to(out)} stays" for path in out.rglob(".*")]
    return faults


def main() -> None:
    """Kills the commands in turn; exits with status 1 if one came to other results."""
    parser = argparse.ArgumentParser(prog="python tests/killed", description=__doc__)
    parser.add_argument("--kills", type=int, default=25, help="kills of each command; default: 25")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("names", nargs="*", metavar="COMMAND", help="default: all; see commands.py")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="task_aware_killed_"))
    corpus = builtin_corpus(folder / "cache", size="tiny", progress=False)
    known = commands(corpus, corpus / "audio" / "validation")
    os.environ["TASK_AWARE_CACHE"] = str(folder / "decoded")
    names = options.names or list(known)
    well = [kill_and_compare(name, known[name], folder, options.kills, options.seed) for name in names]
    if all(well):
        shutil.rmtree(folder)
    else:
        sys.exit(f"what was left is in {folder}")


if __name__ == "__main__":
    main()
