"""`python -m task_aware.import_clips`: makes a data set from your own recordings, in whatever form their labels are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from task_aware.base import cli
from task_aware.importing.options import GAP_SECONDS, Columns, Wanted


def make_parser() -> cli.Parser:
    """The command's options."""
    program = "python -m task_aware.import_clips"
    parser = cli.Parser(prog=program, usage=f"{program} SOURCE --out DIR [options]", description=main.__doc__)
    add = parser.add_argument
    add("source", type=Path, help="folder of the recordings: in one folder per class, or with labels beside them")
    add("--out", type=Path, required=True, help="folder of the data set to make; must not exist yet")
    add("--csv", type=Path | None, help="table of the recordings, or an export of Label Studio (JSON); default: the "
        "table in SOURCE, if there is one")  # fmt: skip
    add("--filename-column", type=str | None, help="column of the file names; default: one with a usual name")
    add("--label-column", type=str | None, help="column of the classes; default: one with a usual name")
    add("--group-column", type=str | None, help="column that is the same for clips cut from one recording, "
        "which are all trained on or all held out; default: one with a usual name, if there is one")  # fmt: skip
    add("--first-label", action="store_true", help="of several labels in a cell of the table, take only the first")
    add("--background", nargs="+", type=str, default=[], metavar="CLASS", help="steady classes that become backgrounds")
    add("--gap", type=float, default=GAP_SECONDS, help="pauses of up to this many seconds stay inside an event")
    add("--quiet", action="store_true", help="hide the progress bar")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes a data set in DESED's layout from a collection of recordings, for --data of the other commands.

    Exit status: 0 if all rows and recordings were used, 1 if some were not (errors.tsv names them), 2 if nothing could
    be imported. See docs/importing.md.
    """
    options = make_parser().parse_args(arguments)
    if not 0 <= options.gap <= 60:
        raise ValueError(f"--gap is {options.gap}; give a number of seconds from 0 to 60")
    # not above: help and mistakes answer without torch
    from task_aware.importing.build import import_collection
    from task_aware.plots.collection import plot_collection

    columns = Columns(options.filename_column, options.label_column, options.group_column, options.first_label)
    wanted = Wanted(options.source, options.csv, columns, tuple(options.background), options.gap)
    contents = import_collection(wanted, options.out, progress=not options.quiet)
    title = options.source.resolve().name
    plot_collection(options.out / "import.png", contents.labels, contents.lengths, contents.levels, title=title)
    print(contents.report())
    print(f"written to {options.out}: audio/, metadata/, report.txt, import.png, cuts.tsv, errors.tsv")
    print(f"next: python -m task_aware.train --data {options.out}")
    if contents.problems:
        print(
            f"{len(contents.problems):,} rows or files were not used: see {options.out / 'errors.tsv'}", file=sys.stderr
        )
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main, stopped="stopped; nothing was written")
