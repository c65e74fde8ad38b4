"""A complete step of task-aware training with native and with reference operators, and natively in bfloat16."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import DeviceType

import task_aware
from task_aware import ops
from task_aware.data.batches import RealBatch, StrongBatch, TrainingBatch
from task_aware.data.labels import DESED_CLASSES
from task_aware.models.condition import condition_size
from task_aware.models.crnn import CRNN, CRNNConfig, load_detector
from task_aware.models.features import FeatureConfig
from task_aware.models.separator import MaskNetwork, preset
from task_aware.models.system import ClassSeparator, Separator
from task_aware.training.config import LossConfig, OptimiserConfig
from task_aware.training.separator import TaskAwareModule

from .side_by_side import Report, Settings, SideBySide, tf32

N_SOURCES = 5
SAMPLE_RATE = 16000


class Shape(NamedTuple):
    """Clips per step and their length, and whether they are for the default recipe.

    That has conditioned sources of classes and the detector of the package; it is in its first stage, or through its
    detector. Otherwise there are free sources and the DCASE 2020 baseline's detector, which runs only if there are real
    clips.
    """

    strong: int
    weak: int
    unlabelled: int
    seconds: float
    default: Literal["first stage", "through the detector"] | None = None

    def __str__(self) -> str:
        stage = f"default, {self.default}" if self.default else "all objectives" if self.weak else "PIT-MSE alone"
        return f"{stage}, {self.strong}+{self.weak}+{self.unlabelled} clips of {self.seconds:g} s"


#: The two stages of the default recipe.
DEFAULT = Shape(8, 0, 0, 5.0, "first stage"), Shape(8, 0, 0, 5.0, "through the detector")


class Variant(NamedTuple):
    """A way of computing a step."""

    backend: ops.Backend
    bfloat16: bool = False
    compiled: bool = False
    cuda_graph: bool = False
    tf32: bool = False


VARIANTS = {
    "native": Variant("native"),
    "reference": Variant("reference"),
    "native, bfloat16": Variant("native", bfloat16=True),
}
#: Additional variants on a GPU: CUDA graphs, as with `--cuda-graph`, and TF32 in the networks.
ON_A_GPU = {
    "native, CUDA graph": Variant("native", cuda_graph=True),
    "native, bfloat16, CUDA graph": Variant("native", bfloat16=True, cuda_graph=True),
    "native, TF32": Variant("native", tf32=True),
    "reference, TF32": Variant("reference", tf32=True),
}
#: torch.compile of all networks; compiling takes minutes, so this runs only with `--full`.
COMPILED = {"torch.compile of the reference": Variant("reference", compiled=True)}


class StepModule(TaskAwareModule):
    """A module whose steps run without a Trainer, as that would add its own time."""

    global_step = 1  # type: ignore[assignment]  # the step after the one that is monitored
    global_rank = 0  # type: ignore[assignment]
    terms: dict[str, Tensor]

    def log(self, *_: object, **__: object) -> None:
        pass

    def log_dict(self, terms: dict[str, Tensor], *_: object, **__: object) -> None:
        self.terms = terms


def make_batch(shape: Shape, device: str) -> TrainingBatch:
    """Makes a batch of noise with short room impulse responses; with pauses for the default recipe."""
    N, L = round(shape.seconds * SAMPLE_RATE), SAMPLE_RATE // 2
    sources = 0.1 * torch.randn(shape.strong, N_SOURCES, N, device=device)
    decay = 10 ** (-3 * torch.arange(L, device=device) / L)
    rirs = 0.05 * torch.randn(shape.strong, N_SOURCES, L, device=device) * decay
    gains = torch.rand(shape.strong, N_SOURCES, device=device)
    background = 0.01 * torch.randn(shape.strong, N, device=device)
    labels = torch.arange(N_SOURCES, device=device).repeat(shape.strong, 1)
    if shape.default:  # one to four events, each within the clip
        events = torch.arange(shape.strong, device=device)[:, None] % 4 + 1
        labels = labels.where(labels < events, -1)
        first, last = (torch.rand(2, shape.strong, N_SOURCES, 1, device=device) * N).sort(0).values
        samples = torch.arange(N, device=device)
        sources *= (labels[..., None] >= 0) & (samples >= first) & (samples < last)
        gains *= labels >= 0
    features = packaged_detector().feature_config if shape.default else FeatureConfig()
    n_frames = features.n_frames(N) // 4  # the CRNN pools four frames into one
    frames = torch.zeros(shape.strong, n_frames, len(DESED_CLASSES), device=device)

    def clips(n_clips: int) -> RealBatch | None:
        present = (torch.rand(n_clips, len(DESED_CLASSES), device=device) < 0.2).float()
        return RealBatch(0.1 * torch.randn(n_clips, N, device=device), present) if n_clips else None

    strong = StrongBatch(sources, rirs, gains, background, labels, frames)
    return TrainingBatch(strong, clips(shape.weak), clips(shape.unlabelled))


def packaged_detector() -> CRNN:
    return load_detector(Path(task_aware.__file__).parent / "assets/detector_builtin.safetensors")


def make_module(shape: Shape, settings: Settings, device: str, variant: Variant) -> StepModule:
    """Makes an untrained mask network before a detector, the same for every variant."""
    torch.manual_seed(0)
    system, losses = (make_default if shape.default else make_free)(settings, variant.backend)
    in_second_stage = shape.weak or shape.default == "through the detector"
    schedule = OptimiserConfig(separation_share=0.0 if in_second_stage else 1.0, anchor_share=0.0)
    module = StepModule(system, losses, schedule, cuda_graph=variant.cuda_graph).to(device).train()
    if variant.compiled:
        for network in (system.mask_network, module.teacher, system.detector):
            network.compile()
    return module


def make_default(settings: Settings, backend: ops.Backend) -> tuple[Separator, LossConfig]:
    """What the default recipe trains."""
    detector = packaged_detector()
    sizes = preset("small", n_mels=detector.feature_config.n_mels, n_sources=len(detector.labels))
    sizes = replace(sizes, conditioning=condition_size(detector))
    if settings.quick:
        sizes = replace(sizes, bottleneck=8, hidden=16, skip=8, blocks=2, repeats=1)
    losses = LossConfig(mse=20.0, own=1.0, frame=0.0)
    return ClassSeparator(MaskNetwork(sizes), detector, merge="own_average", backend=backend), losses


def make_free(settings: Settings, backend: ops.Backend) -> tuple[Separator, LossConfig]:
    """A small mask network and the baseline's detector, untrained."""
    crnn, sizes = CRNNConfig(), preset("small", n_mels=128, n_sources=N_SOURCES)
    if settings.quick:
        crnn = CRNNConfig(filters=(4,) * 7, rnn_cells=8, rnn_layers=1)
        sizes = replace(sizes, bottleneck=8, hidden=16, skip=8, blocks=2, repeats=1)
    detector = CRNN(crnn, DESED_CLASSES, FeatureConfig())
    detector.mean.fill_(-30.0)
    detector.std.fill_(15.0)
    losses = LossConfig(mse=1.0, deep_feature=1.0, weak=1.0, teacher=1.0, frame=1.0)
    return Separator(MaskNetwork(sizes), detector, backend=backend), losses


def stepping(module: StepModule, batch: TrainingBatch, device: str, variant: Variant) -> Callable[[], Tensor]:
    """A call that makes a step, optimiser included, and returns the norm of the gradient."""
    optimiser = module.configure_optimizers()["optimizer"]

    def step() -> Tensor:
        with tf32(variant.tf32):
            optimiser.zero_grad()
            module.on_train_batch_start(batch, 0)
            with torch.autocast(device, torch.bfloat16, enabled=variant.bfloat16):
                loss = module.training_step(batch, 0)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(module.system.mask_network.parameters(), 5.0)
            optimiser.step()
            module.on_train_batch_end()
        return norm

    return step


def tolerance(variant: Variant) -> tuple[float, float]:
    """Relative and absolute tolerance of the loss terms, compared with the reference in float32."""
    if variant.bfloat16:
        return 0.1, 1e-3
    return (1e-2, 1e-4) if variant.tf32 else (1e-4, 1e-7)


def shares(events: Iterable[Any], device: str) -> str:
    """Lists the operators (on a GPU, the kernels) in which the `events` of a profile spend most of their own time."""
    # Only kernels on a GPU: the time of an operator that launches a kernel includes the kernel's.
    kind, spent = (
        (DeviceType.CUDA, "self_device_time_total") if device == "cuda" else (DeviceType.CPU, "self_cpu_time_total")
    )
    of_device = [event for event in events if event.device_type == kind and not event.is_user_annotation]
    own = sorted(((getattr(event, spent), event.count, event.key) for event in of_device), reverse=True)
    total = max(sum(time for time, *_ in own), 1)
    return "\n".join(
        f"{100 * time / total:5.1f} %  {time / 1000:9.2f} ms  {count:5d} x  {key[:80]}" for time, count, key in own[:16]
    )


def share_table(step: Callable[[], object], device: str) -> str:
    """Profiles one step and formats its `shares`."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        step()
    return shares(profile.key_averages(), device)


@pytest.mark.shapes(
    [*DEFAULT, Shape(8, 0, 0, 5.0), Shape(2, 1, 1, 5.0)],
    quick=[Shape(2, 0, 0, 1.0), Shape(1, 1, 1, 1.0), Shape(1, 0, 0, 1.0, "through the detector")],
    full=[Shape(4, 3, 3, 10.0)],
    headline=[Shape(8, 0, 0, 5.0), Shape(2, 1, 1, 5.0)],
)
def test_training_step(side_by_side: SideBySide, report: Report, settings: Settings, shape: Shape) -> None:
    device = side_by_side.device
    batch = make_batch(shape, device)
    steps: dict[str, Callable[[], Tensor]] = {}
    terms = {}
    variants = VARIANTS | (ON_A_GPU if device == "cuda" else {}) | (COMPILED if settings.full else {})
    torch.compiler.reset()  # otherwise earlier shapes would make it compile for dynamic shapes
    for name, variant in variants.items():
        module = make_module(shape, settings, device, variant)
        step = stepping(module, batch, device, variant)
        norm = float(step())
        assert math.isfinite(norm), f"{name}: the gradient's norm is {norm}"
        steps[name] = step
        terms[name] = {term: float(value) for term, value in module.terms.items()}
    for name, found in terms.items():
        rel, abs_ = tolerance(variants[name])
        assert found == pytest.approx(terms["reference"], rel=rel, abs=abs_), name

    for row in side_by_side.measure("training step", str(shape), "whole", steps, settled=True):
        assert row.milliseconds is not None
        row.note = ", ".join(filter(None, (f"{1000 / row.milliseconds:.2f} steps/s", row.note)))
    if settings.profile:
        for name, step in steps.items():
            report.sections.append((f"{shape}, {name}, {device}", share_table(step, device)))
