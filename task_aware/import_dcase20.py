"""`python -m task_aware.import_dcase20`: converts the released DCASE 2020 task 4 baseline into a detector."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from task_aware.base import cli

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Converts a checkpoint of the DCASE 2020 task 4 baseline into a detector for --detector. See docs/detectors.md."""
    parser = cli.Parser(prog="python -m task_aware.import_dcase20", description=main.__doc__)
    parser.add_argument("file", type=Path, help="checkpoint of the baseline; no code in it is executed")
    parser.add_argument("out", type=Path, help="file to write, such as detector.safetensors")
    parser.add_argument("--ema", action="store_true", help="take the mean teacher; default: the student, as published")
    parser.add_argument(
        "--clip-pooling",
        choices=("linear_softmax", "max"),
        default="linear_softmax",
        help="how clip probabilities are pooled: sum(p^2) / sum(p) over the frames, or their maximum",
    )
    options = parser.parse_args(arguments)
    if options.out.is_dir():
        raise ValueError(f"{options.out} is a folder; give the name of the file to write")
    # not above: help and mistakes answer without torch
    from task_aware.models.dcase20 import UNTRAINED_ATTENTION, convert, read_file

    content = read_file(options.file)
    detector = convert(content, options.file, ema=options.ema, clip_pooling=options.clip_pooling)
    detector.save(options.out, imported=options.file.name, weights="model_ema" if options.ema else "model")
    _log.warning(f"{options.file.name}: {UNTRAINED_ATTENTION}", options.clip_pooling.replace("_", " "))
    n_weights = sum(math.prod(x.shape) for x in detector.parameters())
    print(f"written to {options.out}: {len(detector.labels)} classes, {n_weights:,} parameters")


if __name__ == "__main__":
    cli.run(main, stopped="stopped")
