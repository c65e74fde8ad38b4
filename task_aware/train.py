"""`python -m task_aware.train`: trains a separator through a frozen sound event detector."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from task_aware.base import cli
from task_aware.base.types import Backend
from task_aware.training.config import TrainConfig
from task_aware.training.ranges import check_ranges

#: Separation is measured on the mixtures of this many further steps, as long as clips, which training has not seen.
MEASURED_STEPS = 8


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains a separator through a frozen sound event detector, and scores the detector alone and with separation.

    Without options it trains on the built-in corpus. See docs/training.md and docs/recipes.md.
    """
    config = cli.parse(TrainConfig, main.__doc__ or "", arguments, base="builtin", with_data="recordings")
    check_ranges(config)
    # not above: help and mistakes answer without torch
    from lightning import seed_everything
    from torch import nn

    from task_aware.data.offset import remove_offset
    from task_aware.models.condition import condition_size
    from task_aware.models.opening import pick_device
    from task_aware.models.separator import MaskNetwork, preset
    from task_aware.models.system import ClassSeparator, Separator
    from task_aware.plots.separation import draw_separation
    from task_aware.scoring.evaluation import SEPARATED, detect_split, score
    from task_aware.scoring.report import table, write_results
    from task_aware.scoring.separation import verdict
    from task_aware.training.folder import is_first_process
    from task_aware.training.frozen import get_detector
    from task_aware.training.loop import fit
    from task_aware.training.progress import Curves, Preview, draw_curves
    from task_aware.training.separator import TaskAwareModule, measure_separation
    from task_aware.training.setup import FAST_STEPS, check_train, corpus_for, make_data, validation_of

    check_train(config)
    schedule = config.optimiser
    if config.fast_dev_run:
        schedule.max_steps = min(schedule.max_steps, FAST_STEPS)
    backend: Backend = "native" if config.fused else "reference"
    detector = get_detector(config)
    corpus = corpus_for(config, detector)
    validation = validation_of(config, corpus)
    shown = validation.busiest
    samples = remove_offset(shown.read(corpus.sample_rate), corpus.sample_rate)
    seed_everything(config.seed, verbose=False)
    of_classes = config.separator.sources == "classes"
    sizes = preset(
        config.separator.preset,
        n_mels=detector.feature_config.n_mels,
        n_sources=len(detector.labels) * config.separator.slots_per_class if of_classes else config.separator.n_sources,
        causal=config.separator.causal,
    )
    if of_classes and config.separator.conditioned:
        sizes = replace(sizes, conditioning=condition_size(detector))
    system = (ClassSeparator if of_classes else Separator)(
        MaskNetwork(sizes),
        cast(nn.Module, detector),
        mask_floor=config.losses.mask_floor,
        merge=config.separator.merging_rule,
        backend=backend,
    )
    data = make_data(config, corpus, detector)
    n_asked, seed = config.separator.n_sources, config.seed
    module = TaskAwareModule(system, config.losses, schedule, n_asked=n_asked, seed=seed, cuda_graph=config.cuda_graph)
    preview = Preview(system, samples, shown.events, shown.filename)
    timer = fit(
        module,
        data,
        config,
        out=config.out,
        max_steps=schedule.max_steps,
        gradient_clip=schedule.gradient_clip,
        callbacks=[Curves(config.out), *([preview] if config.preview and detector.labels else [])],
    )
    if not is_first_process():
        return  # the first process scores and writes
    system.save(config.out / "separator.safetensors", steps=schedule.max_steps, seed=config.seed)
    if not detector.labels:
        print(f"written to {config.out}: separator.safetensors, logs/; the listener names no classes to score")
        return

    device = pick_device(config.accelerator)
    module.to(device).eval()
    unseen = range(schedule.max_steps, schedule.max_steps + (1 if config.fast_dev_run else MEASURED_STEPS))
    of_clips = replace(config, batch=replace(config.batch, strong_seconds=config.batch.real_seconds))
    separation = measure_separation(module, make_data(of_clips, corpus, detector), unseen)
    detections = detect_split(system, validation, device=device, backend=backend)
    results = score(validation, detections, detector.labels)
    draw_separation(
        config.out / "separation.png",
        system,
        samples,
        reference=shown.events,
        estimated=detections[SEPARATED][shown.filename],
        title=shown.filename,
    )
    draw_curves(config.out)
    conclusion = verdict(results, separation)
    print(table(results))
    print(textwrap.fill(conclusion, 100))
    write_results(
        config.out,
        results,
        detections,
        **timer.summary(),
        separation=separation,
        verdict=conclusion,
        steps=schedule.max_steps,
    )
    print(f"written to {config.out}: separator.safetensors, metrics.json, separation.png, training.png, logs/")


if __name__ == "__main__":
    cli.run(main, stopped=cli.RESUMABLE)
