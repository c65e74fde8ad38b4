"""`python -m task_aware.evaluate`: scores a separator, denoiser or detector on labelled recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from task_aware.base import cli
from task_aware.base.errors import DataError
from task_aware.data.desed import read_split
from task_aware.models.opening import detector_of, open_model, pick_device
from task_aware.scoring.evaluation import decode_all, hear_split, score, score_psds
from task_aware.scoring.psds import why_no_psds
from task_aware.scoring.report import table, write_results
from task_aware.synthesis import builtin_corpus
from task_aware.training.folder import check_scores, remove_scores


def main(arguments: Sequence[str] | None = None) -> None:
    """Scores a checkpoint on labelled clips; prints the scores, and writes them with the detected events.

    See docs/evaluation.md.
    """
    parser = ArgumentParser(prog="python -m task_aware.evaluate", description=main.__doc__)
    parser.add_argument(
        "checkpoint", type=Path, help="separator.safetensors, denoiser.safetensors or detector.safetensors"
    )
    cli.add_detector(parser)
    parser.add_argument("--data", type=Path | None, help="data folder in DESED's layout; default: the built-in corpus")
    parser.add_argument(
        "--split", choices=("validation", "public", "synthetic"), default="validation", help="clips to score on"
    )
    parser.add_argument("--out", type=Path | None, help="output folder; default: evaluation-SPLIT beside CHECKPOINT")
    text = "device; auto: a GPU if there is one"
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto", help=text)
    options = parser.parse_args(arguments)
    out = options.out or options.checkpoint.parent / f"evaluation-{options.split}"
    check_scores(out)
    device = pick_device(options.accelerator)
    scored = {
        "checkpoint": str(options.checkpoint),
        "data": str(options.data or "the built-in corpus"),
        "split": options.split,
    }
    model = open_model(options.checkpoint, options.detector)
    detector = detector_of(model)
    split = read_split(options.data or builtin_corpus(), options.split, detector.labels)
    if not split.clips:
        raise DataError(f"none of the clips in {split.metadata} has a recording; there is nothing to score")
    heard = list(hear_split(model, split, device=device))
    detections = decode_all(heard, detector)
    results = score(split, detections, detector.labels)
    missing = why_no_psds()
    psds_of = None if missing else score_psds(split, heard, detector)
    print(table(results, psds_of))
    if missing:
        print(missing)
    remove_scores(out)
    write_results(out, results, detections, psds_of, **scored)
    print(f"written to {out}")


if __name__ == "__main__":
    cli.run(main)
