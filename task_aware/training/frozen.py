"""The detector that a separator is trained through: a given one, the one in the package, or one trained first."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import cast

from lightning import seed_everything
from torch import nn

from task_aware import ops
from task_aware.base import cli
from task_aware.data.batches import BatchSizes, StepDataModule
from task_aware.data.corpus import Corpus
from task_aware.models.crnn import CRNN, load_detector
from task_aware.models.detector import Detector
from task_aware.models.opening import BUILTIN_DETECTOR, open_detector
from task_aware.models.protocol import check_trainable
from task_aware.training.config import (
    BatchConfig,
    DetectorTrainingConfig,
    FrozenDetectorConfig,
    RunConfig,
    TrainSedConfig,
)
from task_aware.training.detector import DetectorModule, fit_scaler
from task_aware.training.folder import check_same_options, last_checkpoint
from task_aware.training.loop import fit
from task_aware.training.setup import FAST_STEPS, corpus_of

_log = logging.getLogger(__name__)

#: The scaler is set from the clips of this many steps.
SCALER_STEPS = 12


def _batch_sizes(batch: BatchConfig, step: int) -> BatchSizes:
    """Clips in a step; the same for all steps."""
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
        sizes=partial(_batch_sizes, batch),
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


def comes_along(data: Path | None, detector_config: str) -> bool:
    """Whether a run without `--detector` uses the one in the package: with the built-in corpus and its own recipe."""
    return data is None and detector_config == FrozenDetectorConfig.detector_config


def get_detector(config: FrozenDetectorConfig) -> Detector:
    """The detector to freeze: the given one, the one in the package, or one that is trained first.

    If a run that is to be resumed stopped while its detector was trained, that training is resumed, and the run itself
    then starts from its beginning (`config.resume` is reset).
    """
    if config.detector is not None:
        detector = open_detector(config.detector)
        check_trainable(cast(nn.Module, detector), config.detector)
        return detector
    if comes_along(config.data, config.detector_config):
        return load_detector(BUILTIN_DETECTOR)
    out = config.out / "detector"
    if config.resume and (out / "detector.safetensors").is_file():
        check_same_options(out, config)
        detector = load_detector(out / "detector.safetensors")
    else:
        sed = cli.parse(TrainSedConfig, "", ["--config", config.detector_config], base=config.detector_config)
        if config.fast_dev_run:
            sed.training.max_steps = FAST_STEPS
        data, steps = config.data or "the built-in corpus", sed.training.max_steps
        _log.info("no --detector given; training one on %s first (%d steps)", data, steps)
        corpus = corpus_of(config, sample_rate=sed.training.features.sample_rate, labels=sed.classes)
        detector = train_detector(config, sed.training, corpus, out)
    if config.resume and not last_checkpoint(config.out).is_file():
        _log.info("the run had stopped while its detector was trained; starting the main training now")
        config.resume = False
    return detector
