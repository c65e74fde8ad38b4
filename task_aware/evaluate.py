"""`python -m task_aware.evaluate`: scores a separator, denoiser or detector on labelled recordings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from task_aware.base import cli
from task_aware.base.errors import DataError
from task_aware.base.tables import write_table
from task_aware.base.types import Format


def main(arguments: Sequence[str] | None = None) -> None:
    """Scores a checkpoint on labelled clips; prints the scores, and writes them with the detected events.

    Exit status: 0 if all clips were scored, 1 if some could not be used (errors.tsv names them), 2 if the command line
    is wrong. See docs/evaluation.md.
    """
    parser = cli.Parser(prog="python -m task_aware.evaluate", description=main.__doc__)
    parser.add_argument(
        "checkpoint", type=Path, help="separator.safetensors, denoiser.safetensors or detector.safetensors"
    )
    cli.add_detector(parser)
    parser.add_argument("--data", type=Path | None, help="data folder in DESED's layout; default: the built-in corpus")
    parser.add_argument(
        "--split", choices=("validation", "public", "synthetic"), default="validation", help="clips to score on"
    )
    parser.add_argument("--out", type=Path | None, help="output folder; default: evaluation-SPLIT beside CHECKPOINT")
    cli.add_channel(parser)
    cli.add_export(parser, get_args(Format))
    text = "device; auto: a GPU if there is one"
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto", help=text)
    options = parser.parse_args(arguments)
    # not above: help and mistakes answer without torch
    from task_aware.annotations.writing import check_format
    from task_aware.data.corpus import read_split_of
    from task_aware.data.desed import read_split
    from task_aware.models.listener import WaveformDetector
    from task_aware.models.opening import detector_of, open_model, pick_device
    from task_aware.scoring.evaluation import decode_all, hear_split, score, score_psds
    from task_aware.scoring.report import table, write_detections, write_results, write_split_labels
    from task_aware.synthesis import builtin_corpus
    from task_aware.training.folder import SCORES, check_scores, remove

    out = options.out or options.checkpoint.parent / f"evaluation-{options.split}"
    check_scores(out)
    check_format(options.export)
    device = pick_device(options.accelerator)
    scored: dict[str, object] = {
        "checkpoint": str(options.checkpoint),
        "data": str(options.data or "the built-in corpus"),
        "split": options.split,
    }
    model = open_model(options.checkpoint, options.detector)
    detector = detector_of(model)
    read = read_split_of if isinstance(detector, WaveformDetector) else read_split  # what it has no name for is noise
    split = read(options.data or builtin_corpus(), options.split, detector.labels, channel=options.channel)
    if not split.clips:
        raise DataError(f"none of the clips in {split.metadata} has a recording; there is nothing to score")
    unusable: dict[str, str] = {}
    heard = list(hear_split(model, split, device=device, unusable=unusable))
    if not heard:
        raise DataError(f"none of the clips in {split.metadata} can be used: {next(iter(unusable.values()))}")
    split = replace(split, clips=tuple(clip for clip in split.clips if clip.filename not in unusable))
    scored["left_out"] = [*split.missing, *unusable]

    # what there is, is written before anything that could fail
    remove(out, SCORES)
    detections = decode_all(heard, detector)
    write_detections(out, detections)
    write_table(out / "errors.tsv", ("filename", "error"), unusable.items())
    if options.export:
        lengths = {clip.filename: clip.seconds for clip in heard}
        write_split_labels(out / "labels", options.export, split, detections, lengths, detector.feature_config.f_max)
    results = score(split, detections, detector.labels)
    write_results(out, results, detections, **scored)
    psds_of, reasons = score_psds(split, heard, detector)
    write_results(out, results, detections, psds_of, **scored)
    print("\n".join([table(results, psds_of), *reasons, f"written to {out}"]))
    if unusable:
        print(f"{len(unusable)} of the clips could not be used: see {out / 'errors.tsv'}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
