"""`python -m task_aware.train_sed`: trains the baseline detector, to be frozen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lightning import seed_everything

from task_aware import ops
from task_aware.base import cli
from task_aware.data.batches import BatchSizes, StepDataModule
from task_aware.data.corpus import Corpus
from task_aware.evaluate import detect_split, score, table, write_results
from task_aware.models.crnn import CRNN
from task_aware.models.opening import pick_device
from task_aware.synthesis import open_corpus
from task_aware.training.config import BatchConfig, DetectorTrainingConfig, RunConfig, TrainSedConfig
from task_aware.training.detector import DetectorModule, fit_scaler
from task_aware.training.loop import fit, is_first_process

#: Steps whose clips set the scaler.
SCALER_STEPS = 12


def batch_sizes(batch: BatchConfig, step: int) -> BatchSizes:
    """Clips of a step: the same for all."""
    return BatchSizes(batch.strong, batch.weak, batch.unlabelled)


def train_detector(config: RunConfig, options: DetectorTrainingConfig, corpus: Corpus, out: Path) -> CRNN:
    """Trains a detector on `corpus`, writes `out/detector.safetensors`, and returns it in evaluation mode."""
    seed_everything(config.seed, verbose=False)
    batch = options.batch
    detector = CRNN(options.crnn, corpus.encoder.labels, options.features)
    streams = {
        "encoder": corpus.encoder,
        "output_frames": detector.output_frames,
        "weak": corpus.stream("weak", config.seed + 1, batch.real_seconds) if batch.weak else None,
        "unlabelled": corpus.stream("unlabelled", config.seed + 2, batch.real_seconds) if batch.unlabelled else None,
    }
    if options.strong == "mixing":
        streams["mixer"] = corpus.mixer(
            options.mixing,
            n_sources=options.mixing.n_events[1],
            seconds=batch.strong_seconds,
            seed=config.seed,
        )
    else:
        streams["strong_clips"] = corpus.stream("synthetic", config.seed + 3, batch.strong_seconds)
    data = StepDataModule(
        sizes=partial(batch_sizes, batch),
        max_steps=options.max_steps,
        steps_per_epoch=options.steps_per_epoch,
        workers=config.workers,
        **streams,
    )
    backend: ops.Backend = "native" if config.fused else "reference"
    detector.backend = backend
    fit_scaler(detector, data.batches(range(min(SCALER_STEPS, options.max_steps))), backend=backend)
    module = DetectorModule(detector, options, seed=config.seed, backend=backend)
    fit(module, data, config, out=out, max_steps=options.max_steps)
    kept = module.kept.eval()
    kept.save(out / "detector.safetensors", steps=options.max_steps, seed=config.seed)
    return kept


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains a detector, the DCASE 2020 task 4 baseline CRNN, by mean teacher; scores it on the validation clips."""
    config = cli.parse(TrainSedConfig, main.__doc__ or "", arguments, base="detector_builtin")
    options = config.training
    corpus = open_corpus(config.data, config.rirs, sample_rate=options.features.sample_rate, tiny=config.fast_dev_run)
    if config.fast_dev_run:
        options.max_steps = min(options.max_steps, 4)
    detector = train_detector(config, options, corpus, config.out)
    if not is_first_process():
        return  # the first process scores
    split = corpus.split("validation")
    backend: ops.Backend = "native" if config.fused else "reference"
    detections = detect_split(detector, split, device=pick_device(config.accelerator), backend=backend)
    results = score(split, detections, detector.labels)
    print(table(results))
    write_results(config.out, results, detections)


if __name__ == "__main__":
    cli.run(main)
