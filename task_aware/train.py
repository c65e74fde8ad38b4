"""`python -m task_aware.train`: trains a separator through a frozen sound event detector."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning import seed_everything
from torch import nn

from task_aware import ops
from task_aware.base import cli
from task_aware.data.audio import read_audio
from task_aware.data.batches import BatchSizes, StepDataModule
from task_aware.data.corpus import Corpus
from task_aware.data.desed import Clip, Split
from task_aware.evaluate import DETECTOR_ONLY, SEPARATED, detect_split, score, table, write_results
from task_aware.metrics import Scores
from task_aware.models.crnn import load_detector
from task_aware.models.detector import Detector
from task_aware.models.opening import BUILTIN_DETECTOR, open_detector, pick_device
from task_aware.models.protocol import output_frames
from task_aware.models.separator import MaskNetwork, preset
from task_aware.models.system import Separator
from task_aware.ops.pit_loss import EXHAUSTIVE_UP_TO
from task_aware.plot import draw_separation
from task_aware.plots import plot_training
from task_aware.synthesis import open_corpus
from task_aware.train_sed import train_detector
from task_aware.training.config import FrozenDetectorConfig, LossConfig, OptimiserConfig, TrainConfig, TrainSedConfig
from task_aware.training.loop import fit, is_first_process, last_checkpoint, read_history
from task_aware.training.separator import TaskAwareModule

_log = logging.getLogger(__name__)


#: Steps and, for the detector, steps of a `--fast-dev-run`.
FAST_STEPS = 6

#: Up to this share of the energy that belongs outside of each mixture's loudest slot, the slots have not separated.
SEPARATED_ABOVE = 0.5

#: Mixtures that training has not seen, on which that is measured: steps of `batch.strong` each.
MEASURED_STEPS = 8

#: Below this event F1 a detector teaches a separator little.
WEAK_DETECTOR = 0.2


def comes_along(data: Path | None, detector_config: str) -> bool:
    """Whether a run without `--detector` takes the one in the package: on the built-in corpus, by its own options."""
    return data is None and detector_config == FrozenDetectorConfig.detector_config


def get_detector(config: FrozenDetectorConfig) -> Detector:
    """The detector to freeze: the one given, the built-in corpus' own, or one trained first.

    A run to be resumed that had only come to train its detector starts anew from there.
    """
    if config.detector is not None:
        return open_detector(config.detector)
    if comes_along(config.data, config.detector_config):
        return load_detector(BUILTIN_DETECTOR)
    out = config.out / "detector"
    if config.resume and (out / "detector.safetensors").is_file():
        detector = load_detector(out / "detector.safetensors")
    else:
        sed = cli.parse(TrainSedConfig, "", ["--config", config.detector_config], base=config.detector_config)
        if config.fast_dev_run:
            sed.training.max_steps = FAST_STEPS
        data, steps = config.data or "the built-in corpus", sed.training.max_steps
        _log.info("no --detector given: training one on %s first (%d steps)", data, steps)
        corpus = open_corpus(
            config.data, config.rirs, sample_rate=sed.training.features.sample_rate, tiny=config.fast_dev_run
        )
        detector = train_detector(config, sed.training, corpus, out)
    if config.resume and not last_checkpoint(config.out).is_file():
        _log.info("the run stopped while it trained its detector; what it is for starts now")
        config.resume = False
    return detector


def batch_sizes(config: TrainConfig, step: int) -> BatchSizes:
    """Clips of a step: what no active term of the loss reads is not loaded."""
    weights, batch = config.losses, config.batch
    if step < config.optimiser.separation_steps:
        return BatchSizes(config.optimiser.separation_strong, 0, 0)
    return BatchSizes(
        batch.strong if weights.mse or weights.deep_feature or weights.frame else 0,
        batch.weak if weights.weak or weights.teacher else 0,
        batch.unlabelled if weights.teacher else 0,
    )


def make_data(config: TrainConfig, corpus: Corpus, detector: Detector) -> StepDataModule:
    """Batches of strong, weak and unlabelled clips, as far as the losses want them."""
    batch = config.batch
    wanted = batch_sizes(config, config.optimiser.max_steps)
    n_samples = round(batch.strong_seconds * corpus.sample_rate)  # of all mixtures
    frames = (output_frames(detector, n_samples), detector.frame_seconds)
    return StepDataModule(
        sizes=partial(batch_sizes, config),
        max_steps=config.optimiser.max_steps,
        steps_per_epoch=config.optimiser.steps_per_epoch,
        workers=config.workers,
        encoder=corpus.encoder,
        output_frames={n_samples: frames}.__getitem__,
        mixer=corpus.mixer(
            config.mixing,
            n_sources=config.separator.n_sources,
            seconds=batch.strong_seconds,
            seed=config.seed,
        ),
        weak=corpus.stream("weak", config.seed + 1, batch.real_seconds) if wanted.weak else None,
        unlabelled=corpus.stream("unlabelled", config.seed + 2, batch.real_seconds) if wanted.unlabelled else None,
    )


def check_losses(weights: LossConfig, schedule: OptimiserConfig) -> None:
    """Raises ValueError where nothing would be trained, in all steps or in those of the squared error alone."""
    values = (weights.mse, weights.deep_feature, weights.weak, weights.teacher, weights.frame)
    if min(values) < 0 or max(values) == 0:
        raise ValueError(f"losses have the weights {values}; give weights of 0 or more, and at least one above 0")
    shares = (schedule.separation_share, schedule.anchor_share)
    if weights.mse == 0 and max(shares) > 0:
        raise ValueError(
            f"optimiser.separation_share and anchor_share are {shares}, for steps of the squared error alone, and its "
            "weight losses.mse is 0: they would train nothing; give it a weight, or the shares 0"
        )


def check_cuda_graph(config: TrainConfig) -> None:
    """Raises ValueError where `cuda_graph` is asked for without a GPU, with several, or for what needs the host."""
    if not config.cuda_graph:
        return
    on_gpu = pick_device(config.accelerator).type == "cuda"
    if config.devices != 1 or not on_gpu:
        reason = f"devices is {config.devices}" if on_gpu else "this run has none"
        raise ValueError(f"--cuda-graph records the steps of one GPU, and {reason}; train without it")
    n_sources = config.separator.n_sources
    if not config.fused and n_sources > EXHAUSTIVE_UP_TO:
        raise ValueError(
            f"separator.n_sources is {n_sources}; with more than {EXHAUSTIVE_UP_TO} sources, --no-fused finds "
            "the permutation on the host, which --cuda-graph cannot record; drop one of the two options"
        )


@torch.no_grad()
def measure_separation(module: TaskAwareModule, data: StepDataModule, steps: range) -> dict[str, float]:
    """`TaskAwareModule.measure`, averaged over mixtures that training has not seen."""
    measured: dict[str, list[float]] = defaultdict(list)
    for batch in data.batches(steps):
        assert batch.strong is not None
        strong = type(batch.strong)(*(x.to(module.device) for x in batch.strong))
        for name, value in module.measure(strong).items():
            measured[name].append(float(value))
    return {name: float(np.mean(values)) for name, values in measured.items()}


def has_separated(separation: Mapping[str, float]) -> bool:
    """Whether slots hold sources, rather than one of them the clean sum; given `TaskAwareModule.measure`."""
    return separation["spread"] > SEPARATED_ABOVE and separation["relative_loss"] < 1


def verdict(results: Mapping[str, Mapping[str, Scores]], separation: Mapping[str, float]) -> str:
    """What the table allows one to say, given `TaskAwareModule.measure` on unseen mixtures."""
    alone, separated = (results[name]["event"].macro for name in (DETECTOR_ONLY, SEPARATED))
    sentences = []
    if alone < WEAK_DETECTOR:
        sentences.append(
            f"The detector alone reaches {100 * alone:.1f} % event F1: too weak to teach a separator much; "
            "train it longer (train_sed)."
        )
    change = f"Event F1 changes by {100 * (separated - alone):+.1f} points"
    spread = 100 * separation["spread"]
    share = f"of the energy that belongs outside of each mixture's loudest source, {spread:.0f} % is there"
    if has_separated(separation):
        sentences.append(f"The sources have separated ({share}). {change}.")
    else:
        sentences.append(
            f"The sources have not separated yet ({share}; the loss is {separation['relative_loss']:.2f} times that of "
            f"the clean sum in one source). {change}, but that is at most the work of an enhancer and "
            "says nothing of separation: train longer (--max-steps), or with more weight on losses.mse."
        )
    return " ".join(sentences)


def busiest(split: Split) -> Clip:
    """The clip with most classes, the one where separation shows most."""
    return max(split.clips, key=lambda clip: (len({event.label for event in clip.events or ()}), clip.filename))


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains a separator through a frozen detector; prints event F1 of the detector alone and behind the separator."""
    config = cli.parse(TrainConfig, main.__doc__ or "", arguments, base="builtin")
    check_losses(config.losses, config.optimiser)
    check_cuda_graph(config)
    schedule = config.optimiser
    if config.fast_dev_run:
        schedule.max_steps = min(schedule.max_steps, FAST_STEPS)
    backend: ops.Backend = "native" if config.fused else "reference"
    detector = get_detector(config)
    corpus = open_corpus(
        config.data,
        config.rirs,
        sample_rate=detector.feature_config.sample_rate,
        labels=detector.labels,
        tiny=config.fast_dev_run,
    )
    validation = corpus.split("validation")
    seed_everything(config.seed, verbose=False)
    sizes = preset(
        config.separator.preset,
        n_mels=detector.feature_config.n_mels,
        n_sources=config.separator.n_sources,
        causal=config.separator.causal,
    )
    system = Separator(
        MaskNetwork(sizes),
        cast(nn.Module, detector),
        mask_floor=config.losses.mask_floor,
        merge=config.separator.merge,
        backend=backend,
    )
    data = make_data(config, corpus, detector)
    module = TaskAwareModule(system, config.losses, schedule, cuda_graph=config.cuda_graph)
    timer = fit(
        module,
        data,
        config,
        out=config.out,
        max_steps=schedule.max_steps,
        gradient_clip=schedule.gradient_clip,
    )
    if not is_first_process():
        return  # the first process scores and writes
    system.save(config.out / "separator.safetensors", steps=schedule.max_steps, seed=config.seed)

    device = pick_device(config.accelerator)
    module.to(device).eval()
    unseen = range(schedule.max_steps, schedule.max_steps + (1 if config.fast_dev_run else MEASURED_STEPS))
    separation = measure_separation(module, data, unseen)
    detections = detect_split(system, validation, device=device, backend=backend)
    results = score(validation, detections, detector.labels)
    shown = busiest(validation)
    draw_separation(
        config.out / "separation.png",
        system,
        read_audio(shown.path, corpus.sample_rate),
        reference=shown.events,
        estimated=detections[SEPARATED][shown.filename],
        title=shown.filename,
    )
    plot_training(config.out / "training.png", read_history(config.out))
    conclusion = verdict(results, separation)
    print(table(results))
    print(conclusion)
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
    cli.run(main)
