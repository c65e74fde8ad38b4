"""`python -m task_aware.train_sed`: trains a sound event detector, to be frozen for `train`."""

from __future__ import annotations

from collections.abc import Sequence

from task_aware.base import cli
from task_aware.base.types import Backend
from task_aware.training.config import TrainSedConfig
from task_aware.training.ranges import check_ranges


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains a detector as the DCASE 2020 task 4 baseline does (a CRNN with a mean teacher), and scores it.

    Its classes are those of the data, or --classes. See docs/training.md.
    """
    config = cli.parse(
        TrainSedConfig, main.__doc__ or "", arguments, base="detector_builtin", with_data="detector_recordings"
    )
    check_ranges(config)
    # not above: help and mistakes answer without torch
    from task_aware.models.opening import pick_device
    from task_aware.scoring.evaluation import detect_split, score
    from task_aware.scoring.report import table, write_results
    from task_aware.training.folder import is_first_process
    from task_aware.training.frozen import train_detector
    from task_aware.training.setup import check_run, corpus_of, validation_of

    check_run(config)
    options = config.training
    if options.batch.strong < 1:
        raise ValueError("--training.batch.strong is 0; give at least 1")
    corpus = corpus_of(config, sample_rate=options.features.sample_rate, labels=config.classes)
    if config.fast_dev_run:
        options.max_steps = min(options.max_steps, 4)
    detector = train_detector(config, options, corpus, config.out)
    if not is_first_process():
        return  # the first process scores
    split = validation_of(config, corpus)
    backend: Backend = "native" if config.fused else "reference"
    detections = detect_split(detector, split, device=pick_device(config.accelerator), backend=backend)
    results = score(split, detections, detector.labels)
    print(table(results))
    write_results(config.out, results, detections)
    print(f"written to {config.out}: detector.safetensors, metrics.json, logs/")


if __name__ == "__main__":
    cli.run(main, stopped=cli.RESUMABLE)
