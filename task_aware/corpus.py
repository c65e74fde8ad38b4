"""`python -m task_aware.corpus`: generates the built-in corpus of synthesised sounds and prints its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from task_aware.base import cli
from task_aware.synthesis.sizes import SIZES


def main(arguments: Sequence[str] | None = None) -> None:
    """Generates the built-in corpus of synthesised domestic sounds in DESED's layout, and prints its folder."""
    parser = cli.Parser(prog="python -m task_aware.corpus", description=main.__doc__)
    parser.add_argument(
        "--out", type=Path | None, help="output folder; default: the cache, where other commands find it"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed; each gives a different corpus")
    sizes = "stems: more events to mix; large: more validation clips; tiny: for tests"
    parser.add_argument("--size", choices=sorted(SIZES), default="full", help=sizes)
    parser.add_argument("--quiet", action="store_true", help="hide the progress bar")
    options = parser.parse_args(arguments)
    # not above: help and mistakes answer without torch
    from task_aware.synthesis import builtin_corpus, make_corpus

    given = {"seed": options.seed, "size": options.size, "progress": not options.quiet}
    print(builtin_corpus(**given) if options.out is None else make_corpus(options.out.absolute(), **given))


if __name__ == "__main__":
    cli.run(main, stopped="stopped")
