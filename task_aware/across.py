"""`python -m task_aware.across`: scores separators with detectors that they were not trained through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from task_aware.base import cli


def main(arguments: Sequence[str] | None = None) -> None:
    """Scores separators with several detectors, to see whether a gain holds beyond the detector of their training.

    Prints a table per data folder, with 95 % intervals (paired bootstrap over clips). The detectors must have the
    labels and the front end of the separators' own detectors. See docs/evaluation.md.
    """
    parser = cli.Parser(prog="python -m task_aware.across", description=main.__doc__)
    text = "checkpoints of detectors, or package.module:factory for detectors of your own"
    parser.add_argument("--detectors", type=str, nargs="+", required=True, help=text)
    text = "checkpoints of separators, or folders whose runs are averaged, such as OUT/strong_mse of `ablation`"
    parser.add_argument("--separators", type=Path, nargs="+", required=True, help=text)
    text = "folders in DESED's layout, to score on their validation clips; default: the built-in corpus"
    parser.add_argument("--data", type=Path, nargs="+", default=[], help=text)
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap draws for the confidence intervals")
    text = "device; auto: a GPU if there is one"
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto", help=text)
    cli.add_channel(parser)
    options = parser.parse_args(arguments)
    # not above: help and mistakes answer without torch
    from torch import nn

    from task_aware.data.desed import read_split
    from task_aware.models.opening import open_detector, pick_device
    from task_aware.models.protocol import check_detector
    from task_aware.models.system import Separator
    from task_aware.study.across import compare, count, find_separators
    from task_aware.synthesis import builtin_corpus

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
        split = read_split(data, "validation", next(iter(detectors.values())).labels, channel=options.channel)
        table = compare(count(split, detectors, separators, device), options.resamples)
        print("\n".join([f"{len(split.clips)} clips of {data}", "", *table, ""]))


if __name__ == "__main__":
    cli.run(main)
