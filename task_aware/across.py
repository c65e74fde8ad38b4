"""`python -m task_aware.across`: separators before detectors that they were not trained with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from jsonargparse import ArgumentParser
from torch import nn

from task_aware.base import cli
from task_aware.data.desed import read_split
from task_aware.models.opening import open_detector, pick_device
from task_aware.models.system import Separator, check_detector
from task_aware.study.across import compare, count, find_separators
from task_aware.synthesis import builtin_corpus


def main(arguments: Sequence[str] | None = None) -> None:
    """Scores separators before several detectors: whether separation serves more than the one that it was trained with.

    Detectors must have the labels and the front end of the separators' own. Intervals: paired bootstrap over clips.
    """
    parser = ArgumentParser(prog="python -m task_aware.across", description=main.__doc__)
    text = "detectors: checkpoints, or package.module:factory of your own"
    parser.add_argument("--detectors", type=str, nargs="+", required=True, help=text)
    text = "separators: checkpoints, or folders whose runs are averaged, such as OUT/strong_mse of the tables"
    parser.add_argument("--separators", type=Path, nargs="+", required=True, help=text)
    text = "folders in DESED's layout, whose validation clips are heard; default: the built-in corpus"
    parser.add_argument("--data", type=Path, nargs="+", default=[], help=text)
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto")
    options = parser.parse_args(arguments)
    device = pick_device(options.accelerator)
    separators = {
        str(place): [Separator.from_checkpoint(path).to(device) for path in find_separators(place)]
        for place in options.separators
    }
    detectors = {}
    for name in options.detectors:
        detector = detectors[name] = open_detector(name)
        cast(nn.Module, detector).to(device).eval()
        for place, runs in separators.items():
            for own in (separator.detector for separator in runs):
                check_detector(detector, list(own.labels), own.feature_config, place)
    for data in options.data or [builtin_corpus()]:
        split = read_split(data, "validation", next(iter(detectors.values())).labels)
        table = compare(count(split, detectors, separators, device), options.resamples)
        print("\n".join([f"{len(split.clips)} clips of {data}", "", *table, ""]))


if __name__ == "__main__":
    cli.run(main)
