"""`python -m task_aware.completion`: prints a shell script that completes `task-aware`, its commands and options."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from jsonargparse import capture_parser

from task_aware.__main__ import commands
from task_aware.base import cli
from task_aware.base.errors import TaskAwareError


def script(shell: str) -> str:
    """The completion script for `shell`. Raises TaskAwareError if shtab, which generates it, is not installed."""
    try:
        importlib.import_module("shtab")
    except ImportError as error:
        raise TaskAwareError("shtab is not installed; run `pip install '.[completion]'` in the checkout") from error
    parser = cli.Parser(prog="task-aware")
    subcommands = parser.add_subcommands()
    for name, command in commands().items():
        main = importlib.import_module(command.module).main
        subcommands.add_subcommand(name, capture_parser(main, []), help=command.description)
    return parser.get_completion_script(f"shtab-{shell}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a script to source in a shell's start-up file, which completes `task-aware`, its commands and options."""
    parser = cli.Parser(prog="python -m task_aware.completion", description=main.__doc__)
    parser.add_argument("shell", choices=("bash", "zsh"), help="your shell")
    print(script(parser.parse_args(arguments).shell))


if __name__ == "__main__":
    cli.run(main)
