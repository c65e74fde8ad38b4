"""`python -m task_aware.verify_data`: checks a data set: what is there, missing or broken, and what can run with it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from task_aware.base import cli
from task_aware.training.config import TrainConfig, TrainSedConfig

#: The options that make a command run without a split.
TRAIN_WITHOUT = {"weak": "--losses.weak 0 --losses.teacher 0", "unlabelled": "--losses.teacher 0"}
TRAIN_SED_WITHOUT = {
    "weak": "--training.batch.weak 0",
    "unlabelled": "--training.batch.unlabelled 0",
    "synthetic": "--training.strong mixing",
    "soundbank": "--training.strong synthetic",
}


def verdict(needs: Iterable[str], usable: set[str], without: dict[str, str]) -> str:
    """Whether a command can run with the usable splits, and if not, the options that make it run."""
    lacking = [name for name in needs if name not in usable]
    if not lacking:
        return "ready"
    hopeless = [name for name in lacking if name not in without]
    if hopeless:
        return f"cannot run without {', '.join(hopeless)}"
    options = dict.fromkeys(part for name in lacking for part in without[name].replace(" --", "\n--").split("\n"))
    return f"lacks {', '.join(lacking)}; add {' '.join(options)}"


def recipes(usable: set[str]) -> list[tuple[str, str]]:
    """Each command with each packaged recipe, and whether it can run."""
    from task_aware.training.setup import batch_sizes

    rows = []
    detectors = []
    for name in ("recordings", "desed", "desed --config paper"):
        config = cli.parse(TrainConfig, "", ["--config", *name.split()], base="builtin")
        sizes = batch_sizes(config, config.optimiser.max_steps)
        needs = ["soundbank", "validation", *(["weak"] * (sizes.weak > 0)), *(["unlabelled"] * (sizes.unlabelled > 0))]
        rows.append((f"train --config {name}", verdict(needs, usable, TRAIN_WITHOUT)))
        detectors.append(config.detector_config)
    for name in dict.fromkeys(detectors):
        training = cli.parse(TrainSedConfig, "", ["--config", name], base=name).training
        batch = training.batch
        needs = ["soundbank" if training.strong == "mixing" else "synthetic", "validation"]
        needs += ["weak"] * (batch.weak > 0) + ["unlabelled"] * (batch.unlabelled > 0)
        strong = {"soundbank", "synthetic"} & usable
        without = {part: text for part, text in TRAIN_SED_WITHOUT.items() if strong or "strong" not in text}
        rows.append((f"train_sed --config {name}", verdict(needs, usable, without)))
    rows.append(("mix", verdict(["soundbank"], usable, {})))
    rows += [
        (f"evaluate --split {name}", verdict([name], usable, {})) for name in ("validation", "public", "synthetic")
    ]
    return rows


def check_scenes(data: Path, classes: Sequence[str] | None) -> None:
    """Checks a set in the layout of DCASE 2026 task 4; the exit status is 1 if it cannot be scored."""
    from task_aware.data.verify_scenes import verify_scenes

    contents, problems = verify_scenes(data, classes)
    print(contents)
    if problems:
        print("\nproblems", *problems, sep="\n  ")
        print("scoring cannot start", file=sys.stderr)
        sys.exit(1)
    print("\nestimates can be scored: task-aware score_sources ESTIMATES --data", data)


def main(arguments: Sequence[str] | None = None) -> None:
    """Checks a data set: what is there, missing or broken, and which commands can run with it.

    Exit status: 0 if training can start (there are a soundbank and validation clips, and no "problems"), 1 if it
    cannot, 2 if the command line is wrong. See docs/data.md.
    """
    parser = cli.Parser(prog="python -m task_aware.verify_data", description=main.__doc__)
    parser.add_argument("data", type=Path, help="data folder in DESED's layout, or in that of DCASE 2026 task 4")
    parser.add_argument(
        "--rirs", type=Path | None, help="folder of room impulse responses; default: DATA/rirs if it exists"
    )
    parser.add_argument(
        "--decode", action="store_true", help="decode all recordings completely, to find broken and silent ones"
    )
    cli.add_channel(parser)
    text = "the classes that are expected; other labels are then problems; default: those of the data"
    parser.add_argument("--classes", nargs="+", type=str | None, help=text)
    options = parser.parse_args(arguments)
    # not above: help and mistakes answer without torch
    from task_aware.data.scenes import is_scenes
    from task_aware.data.verify import verify
    from task_aware.data.verify_tables import classes_table, forms, splits_table

    if is_scenes(options.data):
        check_scenes(options.data, options.classes)
        return
    report = verify(options.data, options.rirs, labels=options.classes, channel=options.channel, decode=options.decode)
    print(f"{splits_table(report)}\n\n{classes_table(report)}\n")
    if report.rirs is not None:
        print(f"rooms: {len(report.rirs.rooms):,} with {sum(map(len, report.rirs.rooms.values())):,} responses")
    print(f"recordings: {forms(report) or 'none'}")
    for title, lines in (("notes", report.notes), ("problems", report.problems)):
        if lines:
            print(f"\n{title}", *lines, sep="\n  ")
    print("\ncommands", *(f"{name:<38}{answer}" for name, answer in recipes(report.usable)), sep="\n  ")
    if not options.decode:
        print("\nonly headers were read; --decode finds recordings that are broken further on, or silent")
    if not report.can_train:
        print("training cannot start", file=sys.stderr)
        sys.exit(1)
    print("training can start")


if __name__ == "__main__":
    cli.run(main, stopped="stopped")
