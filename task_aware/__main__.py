"""The program `task-aware COMMAND`, which runs a command of the package."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import NamedTuple

from task_aware.base.version import __version__


class Command(NamedTuple):
    """The module of a command, and one line on what it does."""

    module: str
    description: str


def commands() -> dict[str, Command]:
    """All commands by name: the modules whose first line is of the form "`python -m task_aware.NAME`: description."."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        with path.open(encoding="utf-8") as file:
            line = re.match(r'"""`python -m (task_aware\.\w+)`: (.+?)\.?(""")?$', file.readline().rstrip())
        if line:
            found[line[1].rpartition(".")[2]] = Command(line[1], line[2])
    return found


def usage() -> str:
    """The text of `task-aware --help`, with a list of all commands."""
    found = commands()
    width = max(map(len, found))
    lines = [f"  {name:<{width}}  {command.description}" for name, command in found.items()]
    intro = "Trains a sound separator through a frozen sound event detector."
    outro = "`task-aware COMMAND --help` explains a command and its options. `task-aware --version` prints the version."
    return "\n".join(["usage: task-aware COMMAND [options]", "", intro, "", "commands:", *lines, "", outro])


def main() -> None:
    """Runs the command named by the first argument, with the remaining arguments. Exit status 2 if there is none."""
    name, *arguments = sys.argv[1:] or [""]
    if name in ("-h", "--help"):
        print(usage())
        return
    if name == "--version":
        print(f"task_aware {__version__}")
        return
    found = commands()
    if name not in found:
        mistake = f"there is no command {name!r}" if name else "no command given"
        print(f"error: {mistake}; choose from {', '.join(found)} (task-aware --help describes them)", file=sys.stderr)
        sys.exit(2)
    sys.argv[1:] = arguments
    runpy.run_module(found[name].module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
