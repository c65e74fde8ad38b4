"""One whole step of task-aware training, with native and with reference operators, and natively in bfloat16."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from task_aware import ops
from task_aware.config import LossConfig, OptimiserConfig
from task_aware.data.batches import RealBatch, StrongBatch, TrainingBatch
from task_aware.data.labels import DESED_CLASSES
from task_aware.features import FeatureConfig
from task_aware.models.detector import CRNN, CRNNConfig
from task_aware.models.separator import MaskNetwork, preset
from task_aware.models.system import Separator
from task_aware.training import TaskAwareModule

from .side_by_side import Report, Settings, SideBySide

N_SOURCES = 5
SAMPLE_RATE = 16000


class Shape(NamedTuple):
    """Clips of a step and their length; the detector takes part where there are real clips."""

    strong: int
    weak: int
    unlabelled: int
    seconds: float

    def __str__(self) -> str:
        stage = "all objectives" if self.weak else "PIT-MSE alone"
        return f"{stage}, {self.strong}+{self.weak}+{self.unlabelled} clips of {self.seconds:g} s"


class Variant(NamedTuple):
    """How a step is computed."""

    backend: ops.Backend
    bfloat16: bool = False
    compiled: bool = False
    cuda_graph: bool = False


VARIANTS = {
    "native": Variant("native"),
    "reference": Variant("reference"),
    "native, bfloat16": Variant("native", bfloat16=True),
}
#: As `--cuda-graph` trains.
RECORDED = {
    "native, CUDA graph": Variant("native", cuda_graph=True),
    "native, bfloat16, CUDA graph": Variant("native", bfloat16=True, cuda_graph=True),
}
#: All networks by torch.compile, the rest as it is; minutes of compiling, so with `--full` alone.
COMPILED = {"torch.compile of the reference": Variant("reference", compiled=True)}


class StepModule(TaskAwareModule):
    """A module whose steps run without a Trainer, which would add its own time."""

    global_step = 1  # type: ignore[assignment]  # the step after the one that is monitored
    terms: dict[str, Tensor]

    def log(self, *_: object, **__: object) -> None:
        pass

    def log_dict(self, terms: dict[str, Tensor], *_: object, **__: object) -> None:
        self.terms = terms


def make_batch(shape: Shape, device: str) -> TrainingBatch:
    """Noise bursts in short rooms, and noise."""
    N, L = round(shape.seconds * SAMPLE_RATE), SAMPLE_RATE // 2
    sources = 0.1 * torch.randn(shape.strong, N_SOURCES, N, device=device)
    decay = 10 ** (-3 * torch.arange(L, device=device) / L)
    rirs = 0.05 * torch.randn(shape.strong, N_SOURCES, L, device=device) * decay
    gains = torch.rand(shape.strong, N_SOURCES, device=device)
    background = 0.01 * torch.randn(shape.strong, N, device=device)
    labels = torch.arange(N_SOURCES, device=device).expand(shape.strong, N_SOURCES)
    n_frames = FeatureConfig().n_frames(N) // 4  # the CRNN pools four frames into one
    frames = torch.zeros(shape.strong, n_frames, len(DESED_CLASSES), device=device)

    def clips(n_clips: int) -> RealBatch | None:
        present = (torch.rand(n_clips, len(DESED_CLASSES), device=device) < 0.2).float()
        return RealBatch(0.1 * torch.randn(n_clips, N, device=device), present) if n_clips else None

    strong = StrongBatch(sources, rirs, gains, background, labels, frames)
    return TrainingBatch(strong, clips(shape.weak), clips(shape.unlabelled))


def make_module(shape: Shape, settings: Settings, device: str, variant: Variant) -> StepModule:
    """Small mask network and the baseline's detector, untrained, the same for every variant."""
    torch.manual_seed(0)
    crnn, sizes = CRNNConfig(), preset("small", n_mels=128, n_sources=N_SOURCES)
    if settings.quick:
        crnn = CRNNConfig(filters=(4,) * 7, rnn_cells=8, rnn_layers=1)
        sizes = replace(sizes, bottleneck=8, hidden=16, skip=8, blocks=2, repeats=1)
    detector = CRNN(crnn, DESED_CLASSES, FeatureConfig())
    detector.mean.fill_(-30.0)
    detector.std.fill_(15.0)
    schedule = OptimiserConfig(separation_share=0.0 if shape.weak else 1.0, anchor_share=0.0)
    weights = LossConfig(mse=1.0, deep_feature=1.0, weak=1.0, teacher=1.0, frame=1.0)
    system = Separator(MaskNetwork(sizes), detector, backend=variant.backend)
    module = StepModule(system, weights, schedule, cuda_graph=variant.cuda_graph).to(device).train()
    if variant.compiled:
        for network in (system.mask_network, module.teacher, detector):
            network.compile()
    return module


def share_table(step: object, device: str) -> str:
    """The operators on which a step spends most of its own time."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        step()  # type: ignore[operator]
    spent = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: getattr(event, spent), reverse=True)
    total = max(sum(getattr(event, spent) for event in events), 1)
    lines = []
    for event in events[:16]:
        own = getattr(event, spent)
        lines.append(f"{100 * own / total:5.1f} %  {own / 1000:9.2f} ms  {event.count:5d} x  {event.key[:80]}")
    return "\n".join(lines)


@pytest.mark.shapes(
    [Shape(8, 0, 0, 5.0), Shape(2, 1, 1, 5.0)],
    quick=[Shape(2, 0, 0, 1.0), Shape(1, 1, 1, 1.0)],
    full=[Shape(4, 3, 3, 10.0)],
)
def test_training_step(side_by_side: SideBySide, report: Report, settings: Settings, shape: Shape) -> None:
    device = side_by_side.device
    batch = make_batch(shape, device)
    steps, terms = {}, {}
    variants = VARIANTS | (RECORDED if device == "cuda" else {}) | (COMPILED if settings.full else {})
    for name, variant in variants.items():
        module = make_module(shape, settings, device, variant)
        optimiser = module.configure_optimizers()["optimizer"]

        def step(
            module: StepModule = module, optimiser: torch.optim.Optimizer = optimiser, autocast: bool = variant.bfloat16
        ) -> None:
            optimiser.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=autocast):
                loss = module.training_step(batch, 0)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.system.mask_network.parameters(), 5.0)
            optimiser.step()
            module.on_train_batch_end()

        step()
        steps[name] = step
        terms[name] = {term: float(value) for term, value in module.terms.items()}
    for name, found in terms.items():
        rel, abs_ = (0.1, 1e-3) if variants[name].bfloat16 else (1e-4, 1e-7)
        assert found == pytest.approx(terms["reference"], rel=rel, abs=abs_), name

    for row in side_by_side.measure("training step", str(shape), "whole", steps, settled=True):
        assert row.milliseconds is not None
        row.note = f"{1000 / row.milliseconds:.2f} steps/s"
    if settings.profile:
        for name, step in steps.items():
            report.sections.append((f"{shape}, {name}, {device}", share_table(step, device)))
