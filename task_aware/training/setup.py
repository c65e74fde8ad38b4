"""Sets up a run of `train`: clips per step, data, and checks of the options before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from task_aware.base.limits import MAX_SOURCES
from task_aware.data.batches import BatchSizes, StepDataModule
from task_aware.data.corpus import Corpus
from task_aware.data.desed import Split
from task_aware.models.detector import Detector
from task_aware.models.listener import WaveformDetector
from task_aware.models.merging import check_merge
from task_aware.models.opening import pick_device
from task_aware.models.protocol import output_frames
from task_aware.ops._assignment import EXHAUSTIVE_UP_TO
from task_aware.synthesis import open_corpus
from task_aware.training.config import LossConfig, OptimiserConfig, RunConfig, TrainConfig
from task_aware.training.folder import check_new

#: Steps of a `--fast-dev-run`, for the separator and for the detector, and the clips that it scores.
FAST_STEPS, FAST_CLIPS = 6, 12

#: The losses that compare classes.
OF_CLASSES = ("weak", "teacher", "frame", "own")


def corpus_of(
    config: RunConfig, *, sample_rate: int, labels: Sequence[str] | None, others_are_noise: bool = False
) -> Corpus:
    """Opens the data of a run, with these classes or its own; a fast run without data has the smallest corpus."""
    return open_corpus(
        config.data,
        config.rirs,
        sample_rate=sample_rate,
        labels=labels,
        channel=config.channel,
        tiny=config.fast_dev_run,
        others_are_noise=others_are_noise,
    )


def validation_of(config: RunConfig, corpus: Corpus) -> Split:
    """The validation clips that a run scores, a few of them if it is a fast one."""
    split = corpus.split("validation")
    return replace(split, clips=split.clips[:FAST_CLIPS]) if config.fast_dev_run else split


def corpus_for(config: TrainConfig, detector: Detector) -> Corpus:
    """Opens the data of a run through a detector, with its classes.

    What a listener of waveforms has no name for is noise to it; if it names nothing, the data's classes are used.

    Raises ValueError if such a listener is to be trained by losses that need classes.
    """
    if not detector.labels and (given := [name for name in OF_CLASSES if getattr(config.losses, name)]):
        raise ValueError(
            f"this listener names no classes, but {', '.join(f'losses.{name}' for name in given)} compare them; set "
            "these weights to 0, losses.deep_feature to more, and separator.sources to free"
        )
    if not detector.labels and config.separator.sources == "classes":
        raise ValueError("this listener names no classes to separate; give --separator.sources free")
    return corpus_of(
        config,
        sample_rate=detector.feature_config.sample_rate,
        labels=detector.labels or None,
        others_are_noise=bool(detector.labels) and isinstance(detector, WaveformDetector),
    )


def batch_sizes(config: TrainConfig, step: int) -> BatchSizes:
    """Clips in a step. Those that no active loss needs are not loaded."""
    weights, batch = config.losses, config.batch
    if step < config.optimiser.separation_steps:
        return BatchSizes(config.optimiser.separation_strong, 0, 0)
    return BatchSizes(
        batch.strong if weights.mse or weights.deep_feature or weights.frame or weights.own else 0,
        batch.weak if weights.weak or weights.teacher else 0,
        batch.unlabelled if weights.teacher else 0,
    )


def make_data(config: TrainConfig, corpus: Corpus, detector: Detector) -> StepDataModule:
    """Batches of strong, weak and unlabelled clips, as far as the losses need them."""
    batch = config.batch
    wanted = batch_sizes(config, config.optimiser.max_steps)
    n_samples = round(batch.strong_seconds * corpus.sample_rate)  # length of all mixtures
    frames = (output_frames(detector, n_samples), detector.frame_seconds)
    rows = config.mixing.n_events[1] if config.separator.sources == "classes" else config.separator.n_sources
    return StepDataModule(
        sizes=partial(batch_sizes, config),
        max_steps=config.optimiser.max_steps,
        steps_per_epoch=config.optimiser.steps_per_epoch,
        workers=config.workers,
        encoder=corpus.encoder,
        output_frames={n_samples: frames}.__getitem__,
        mixer=corpus.mixer(
            config.mixing,
            n_sources=rows,
            seconds=batch.strong_seconds,
            seed=config.seed,
        ),
        weak=corpus.stream("weak", config.seed + 1, batch.real_seconds) if wanted.weak else None,
        unlabelled=corpus.stream("unlabelled", config.seed + 2, batch.real_seconds) if wanted.unlabelled else None,
    )


def check_run(config: RunConfig) -> None:
    """Checks, before anything is computed, that the devices are there, and that `out` is free.

    Raises:
        ValueError: there are not that many devices.
        CheckpointError: a new run would replace what is in `out`.
    """
    on_gpu = pick_device(config.accelerator).type == "cuda"
    if on_gpu and config.devices > (there := torch.cuda.device_count()):
        raise ValueError(f"--devices is {config.devices}, but this machine has {there} GPUs; give at most as many")
    if not config.resume:
        check_new(config.out)


def check_train(config: TrainConfig) -> None:
    """All checks of the options of `train` but those of ranges, before anything is computed; see the others."""
    check_run(config)
    check_losses(config.losses, config.optimiser)
    check_batch(config)
    check_sources(config)
    check_cuda_graph(config)


def check_batch(config: TrainConfig) -> None:
    """Raises ValueError if a step with all losses would have no clip that one of them needs."""
    weights, sizes = config.losses, batch_sizes(config, config.optimiser.max_steps)
    needed = {
        "mse": ("strong", sizes.strong),
        "deep_feature": ("strong", sizes.strong),
        "frame": ("strong", sizes.strong),
        "own": ("strong", sizes.strong),
        "weak": ("weak", sizes.weak),
        "teacher": ("weak and batch.unlabelled", sizes.weak + sizes.unlabelled),
    }
    for loss, (clips, number) in needed.items():
        if getattr(weights, loss) and not number:
            raise ValueError(
                f"--batch.{clips} is 0, but losses.{loss} is trained on these clips; give at least 1, or set the "
                "weight of this loss to 0"
            )


def check_losses(weights: LossConfig, schedule: OptimiserConfig) -> None:
    """Raises ValueError if nothing would be trained, in all steps or in those that use the squared error only."""
    values = (weights.mse, weights.deep_feature, weights.weak, weights.teacher, weights.frame, weights.own)
    if max(values) == 0:
        raise ValueError(f"the weights of the losses are {values}; give at least one above 0")
    shares = (schedule.separation_share, schedule.anchor_share)
    if weights.mse == 0 and max(shares) > 0:
        raise ValueError(
            f"optimiser.separation_share and anchor_share are {shares}, but losses.mse is 0, so that these steps would "
            "train nothing; give losses.mse a weight, or set both shares to 0"
        )


def check_sources(config: TrainConfig) -> None:
    """Raises ValueError for losses, a merging rule or slots that sources of classes, or free ones, do not have."""
    sources, slots, asked = (config.separator.sources, config.separator.slots_per_class, config.separator.n_sources)
    if slots > 1 and sources == "free":
        raise ValueError(f"separator.slots_per_class is {slots}, but free sources have no classes; give 1")
    if slots > 1 and slots * asked > MAX_SOURCES:
        raise ValueError(
            f"separator.n_sources is {asked} with {slots} slots for each class, {slots * asked} sources in a mixture; "
            f"at most {MAX_SOURCES} can be trained: lower one of them"
        )
    check_merge(sources, config.separator.merging_rule)
    others = ("frame",) if sources == "classes" else ("own",)
    if given := ", ".join(f"losses.{name}" for name in others if getattr(config.losses, name)):
        raise ValueError(f"{given} cannot be trained with separator.sources={sources}; set the weight to 0")


def check_cuda_graph(config: TrainConfig) -> None:
    """Raises ValueError if `cuda_graph` is set without a GPU, with several GPUs, or for a loss that needs the host."""
    if not config.cuda_graph:
        return
    on_gpu = pick_device(config.accelerator).type == "cuda"
    if config.devices != 1 or not on_gpu:
        reason = f"devices is {config.devices}" if on_gpu else "this run has none"
        raise ValueError(f"--cuda-graph needs exactly one GPU, but {reason}; train without it")
    n_sources = config.separator.n_sources
    if config.separator.sources == "free" and not config.fused and n_sources > EXHAUSTIVE_UP_TO:
        raise ValueError(
            f"separator.n_sources is {n_sources}; with more than {EXHAUSTIVE_UP_TO} sources, --no-fused searches "
            "the permutation on the host, which --cuda-graph cannot record; leave out one of these options"
        )
