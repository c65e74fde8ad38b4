"""`python -m task_aware.ablation`: trains and scores all systems of the paper's Tables 1 and 2 on your data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from task_aware.base import cli
from task_aware.base.files import claim
from task_aware.study.systems import DETECTOR_ALONE, ONLY_DEFAULT_RECIPE, ROWS

#: Steps of each run with `--fast-dev-run`: one for each stage.
FAST_STEPS = 2


def make_parser() -> cli.Parser:
    """The command's options."""
    program = "python -m task_aware.ablation"
    parser = cli.Parser(prog=program, usage=f"{program} --out DIR [options]", description=main.__doc__)
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        required=True,
        help="output folder of the runs and tables; run the same command again to continue",
    )
    add("--data", type=Path | None, help="data folder in DESED's layout; default: the built-in corpus")
    add("--rirs", type=Path | None, help="folder of room impulse responses; default: DATA/rirs if it exists")
    add("--detector", type=Path | None, help="checkpoint of the detector to freeze; default: the one in the package, "
        "or with DATA one that is trained first by the detector_config of --config")  # fmt: skip
    add("--config", action="append", help=f"recipe of `train`, repeatable: a path, or one of {cli.PACKAGED}; "
        "default: builtin, or recordings with --data")  # fmt: skip
    add("--denoiser-config", default="denoiser_builtin", help="recipe of `train_sep`, except for the mixing options, "
        "which are those of --config")  # fmt: skip
    add("--recipe", choices=("default", "paper"), default="default", help="paper: add --config paper after "
        "the other recipes, and leave out the rows that are not in the paper")  # fmt: skip
    add("--rows", nargs="+", choices=tuple(ROWS), metavar="ROW", help="rows to run, besides the detector alone; "
        f"default: all of {', '.join(ROWS)}")  # fmt: skip
    add("--test", nargs="+", default=[], type=Path, help="further data folders in DESED's layout, to score the systems "
        "on as well, with separate tables")  # fmt: skip
    add("--seeds", type=int, default=3, help="runs per row, with the seeds 0, 1, ...")
    add("--max-steps", type=int | None, help="length of each run in steps, except the detector's training")
    add("--resamples", type=int, default=1000, help="bootstrap draws for the confidence intervals")
    add("--accelerator", choices=("auto", "cpu", "gpu"), default="auto", help="device; auto: a GPU if there is one")
    cli.add_channel(parser)
    add("--fast-dev-run", action="store_true", help="check that everything runs: one seed, two steps per row")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains and scores the systems of the paper's Tables 1 and 2, and prints the tables.

    Finished runs are kept; after a stop, run the same command again to continue. A failed run does not stop the others;
    the exit status is then 1. See docs/studies.md.
    """
    options = make_parser().parse_args(arguments)
    names = [test.name for test in options.test]
    if len({*names, ""}) <= len(names):
        raise ValueError(f"the folders of --test are named {', '.join(names)}; their names must differ")
    if options.seeds < 1 or options.resamples < 1:
        raise ValueError(f"--seeds is {options.seeds} and --resamples is {options.resamples}; both must be at least 1")
    # not above: help and mistakes answer without torch
    from task_aware.study.jobs import run_all
    from task_aware.study.plan import common_options, make_jobs, scores_folder, shared_detector, train_config
    from task_aware.study.results import check_same, collect, describe, warn_unseparated
    from task_aware.study.tables import Comparison
    from task_aware.synthesis import builtin_corpus

    if options.fast_dev_run:
        options.seeds, options.max_steps = 1, FAST_STEPS
    rows = options.rows or [name for name in ROWS if options.recipe == "default" or name not in ONLY_DEFAULT_RECIPE]
    options.rows = [name for name in ROWS if name in {*rows, DETECTOR_ALONE}]
    configs = [f"--config={name}" for name in options.config or ["recordings" if options.data else "builtin"]]
    configs += ["--config=paper"] if options.recipe == "paper" else []
    data = options.data or builtin_corpus(size="tiny" if options.fast_dev_run else "full")
    claim(options.out)
    check_same(options.out / "ablation.json", options)
    fast = ["--fast-dev-run"] if options.fast_dev_run else []
    detector = shared_detector(options, train_config(configs).detector_config, [*common_options(options, data), *fast])
    jobs = list(make_jobs(options, configs, detector, data))
    failed = run_all(jobs)
    unseparated = warn_unseparated([job for job in jobs if job.is_done])
    for name, folder, out in [
        ("", data, options.out),
        *((t.name, t, options.out / scores_folder(t)) for t in options.test),
    ]:
        results = collect(options, jobs, detector, folder, name)
        if DETECTOR_ALONE in results:
            comparison = Comparison(results, resamples=options.resamples)
            note = describe(options, folder, detector) + unseparated
            comparison.write(out, note)
            print(f"\n{comparison.markdown()}\n{note}\nwritten to {out}: tables.md, tables.csv, tables.png")
    if failed:
        print("\n".join(["these runs failed; run the same command again to retry them:", *failed]), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main, stopped="stopped; run the same command again to continue")
