"""`python -m task_aware.train_sep`: trains the separation baseline that the paper compares with (SEP+SED)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from task_aware.base import cli
from task_aware.base.types import Backend
from task_aware.training.config import TrainSepConfig
from task_aware.training.ranges import check_ranges


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains the DCASE 2020 separation baseline, a denoiser, and scores a frozen detector alone and with it.

    See docs/training.md.
    """
    config = cli.parse(
        TrainSepConfig, main.__doc__ or "", arguments, base="denoiser_builtin", with_data="denoiser_recordings"
    )
    check_ranges(config)
    # not above: help and mistakes answer without torch
    from lightning import seed_everything

    from task_aware.data.batches import StepDataModule
    from task_aware.models.crnn import CRNN
    from task_aware.models.denoiser import PRESETS, DenoisedDetector, Denoiser, DenoiserConfig
    from task_aware.models.opening import pick_device
    from task_aware.scoring.evaluation import detect_split, score
    from task_aware.scoring.report import table, write_results
    from task_aware.training.denoiser import DenoisingModule, batch_sizes
    from task_aware.training.folder import is_first_process
    from task_aware.training.frozen import get_detector
    from task_aware.training.loop import fit
    from task_aware.training.progress import Curves, draw_curves
    from task_aware.training.setup import FAST_STEPS, check_run, corpus_of, validation_of

    check_run(config)
    options = config.denoiser
    if config.fast_dev_run:
        options.max_steps = min(options.max_steps, FAST_STEPS)
    backend: Backend = "native" if config.fused else "reference"
    detector = get_detector(config)
    if not isinstance(detector, CRNN):
        raise ValueError(
            f"--detector is {config.detector}; give a checkpoint here, because it is saved with the denoiser"
        )
    sample_rate = detector.feature_config.sample_rate
    corpus = corpus_of(config, sample_rate=sample_rate, labels=detector.labels)
    validation = validation_of(config, corpus)
    seed_everything(config.seed, verbose=False)
    denoiser = Denoiser(DenoiserConfig(sample_rate=sample_rate, **PRESETS[options.preset]))
    system = DenoisedDetector(denoiser, detector, backend=backend)
    data = StepDataModule(
        sizes=partial(batch_sizes, options.mixtures),
        max_steps=options.max_steps,
        steps_per_epoch=options.steps_per_epoch,
        workers=config.workers,
        encoder=corpus.encoder,
        output_frames=detector.output_frames,
        mixer=corpus.mixer(
            config.mixing, n_sources=config.mixing.n_events[1], seconds=options.seconds, seed=config.seed
        ),
    )
    module = DenoisingModule(denoiser, options.learning_rate, backend=backend)
    timer = fit(module, data, config, out=config.out, max_steps=options.max_steps, callbacks=[Curves(config.out)])
    if not is_first_process():
        return  # the first process scores and writes
    system.save(config.out / "denoiser.safetensors", steps=options.max_steps, seed=config.seed)
    draw_curves(config.out)

    detections = detect_split(system, validation, device=pick_device(config.accelerator), backend=backend)
    results = score(validation, detections, detector.labels)
    print(table(results))
    write_results(config.out, results, detections, **timer.summary(), steps=options.max_steps)
    print(f"written to {config.out}: denoiser.safetensors, metrics.json, training.png, logs/")


if __name__ == "__main__":
    cli.run(main, stopped=cli.RESUMABLE)
