"""`task-aware COMMAND`: runs the package's commands."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """A module that runs, and what it does."""

    module: str
    description: str


def commands() -> dict[str, Command]:
    """Every command by its name: the modules whose first line says "`python -m task_aware.NAME`: description."."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        with path.open(encoding="utf-8") as file:
            line = re.match(r'"""`python -m (task_aware\.\w+)`: (.+?)\.?(""")?$', file.readline().rstrip())
        if line:
            found[line[1].rpartition(".")[2]] = Command(line[1], line[2])
    return found


def usage() -> str:
    """The list of all commands."""
    found = commands()
    width = max(map(len, found))
    lines = [f"  {name:<{width}}  {command.description}" for name, command in found.items()]
    return "\n".join(["usage: task-aware COMMAND [options]     task-aware COMMAND --help", "", *lines])


def main() -> None:
    """Runs the command that is named first; the rest is its own. Exit status 2 where there is none of that name."""
    name, *arguments = sys.argv[1:] or [""]
    if name in ("-h", "--help"):
        print(usage())
        return
    found = commands()
    if name not in found:
        mistake = f"there is no command {name!r}" if name else "a command is missing"
        print(f"error: {mistake}; give one of {', '.join(found)}, or --help", file=sys.stderr)
        sys.exit(2)
    sys.argv[1:] = arguments
    runpy.run_module(found[name].module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
