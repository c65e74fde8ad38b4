"""The LightningModule that trains a mask network through a frozen detector."""

from __future__ import annotations

import copy
from collections import defaultdict

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor

from task_aware.data.batches import StepDataModule, StrongBatch, TrainingBatch
from task_aware.models.separator import MaskNetwork
from task_aware.models.system import ClassSeparator, Separator
from task_aware.training.class_objectives import ClassObjectives
from task_aware.training.config import LossConfig, OptimiserConfig
from task_aware.training.objectives import Objectives, Stage
from task_aware.training.recorded import RecordedObjectives
from task_aware.training.schedule import cosine, seed_step, update_average, warmup

#: Steps between two measurements of how far the sources have separated.
MONITOR_EVERY = 50


class TaskAwareModule(LightningModule):
    """Trains the mask network of `system`. The weights of its detector never change.

    `Objectives` computes the loss; this class has the schedule, the mean teacher and the logging.

    Args:
        system: mask network and frozen detector.
        loss_config: weights and forms of the losses.
        optimiser_config: schedule.
        n_asked: sources per mixture that a `ClassSeparator` is trained with.
        seed: of the classes asked for, which depend on (seed, step, rank) alone.
        cuda_graph: record the loss and its gradients as CUDA graphs; on one GPU only.
    """

    def __init__(
        self,
        system: Separator,
        loss_config: LossConfig,
        optimiser_config: OptimiserConfig,
        *,
        n_asked: int = 5,
        seed: int = 0,
        cuda_graph: bool = False,
    ) -> None:
        super().__init__()
        self.system = system
        self.teacher: MaskNetwork = copy.deepcopy(system.mask_network).requires_grad_(False)
        self.objectives = (
            ClassObjectives(system, self.teacher, loss_config, n_asked=n_asked)
            if isinstance(system, ClassSeparator)
            else Objectives(system, self.teacher, loss_config)
        )
        self.schedule = optimiser_config
        self.seed = seed
        self.recorded = RecordedObjectives(self.objectives, system.mask_network) if cuda_graph else None

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        schedule = self.schedule

        def factor(step: int) -> float:
            rate, first, last = 1.0, 0, schedule.separation_steps
            if self.stage(step).through_detector:
                rate = schedule.task_learning_rate / schedule.learning_rate if last else 1.0
                first, last = last, schedule.max_steps
            if schedule.cosine_decay:
                rate *= cosine(step - first, last - first)
            return rate * warmup(step, schedule.warmup_steps)

        optimiser = torch.optim.Adam(self.system.mask_network.parameters(), schedule.learning_rate, fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: float | None = None, *_: object, **__: object
    ) -> None:
        """Clips the norm of the gradients. Lightning refuses fused optimisers in mixed precision, even in bfloat16."""
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.system.mask_network.parameters(), gradient_clip_val)

    def stage(self, step: int) -> Stage:
        """The stage to which a step belongs."""
        return Stage(
            anchored=step < self.schedule.anchor_steps, through_detector=step >= self.schedule.separation_steps
        )

    def on_train_batch_start(self, batch: TrainingBatch, batch_idx: int) -> None:
        seed_step(self.seed, self.global_step, self.global_rank)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        total, terms = (self.recorded or self.objectives)(batch, self.stage(self.global_step))
        self.log_dict({f"train/{name}": value for name, value in terms.items()})
        self.log("train/loss", total.detach())
        if batch.strong is not None and self.global_step % MONITOR_EVERY == 0:
            self.log_dict({f"separation/{name}": value for name, value in self.measure(batch.strong).items()})
        return total

    def measure(self, batch: StrongBatch) -> dict[str, Tensor]:
        """Measures how far the sources have separated: see the objectives' own `measure`."""
        return self.objectives.measure(batch)

    def on_train_batch_end(self, *_: object) -> None:
        if self.objectives.weights.teacher:
            update_average(self.teacher, self.system.mask_network, self.global_step, self.schedule.ema_decay)

    def on_train_end(self) -> None:
        if self.recorded is not None:
            self.recorded.forget()  # frees its memory for what comes after training
            self.recorded = None


@torch.no_grad()
def measure_separation(module: TaskAwareModule, data: StepDataModule, steps: range) -> dict[str, float]:
    """Averages `TaskAwareModule.measure` over the mixtures of these steps."""
    measured: dict[str, list[float]] = defaultdict(list)
    for batch in data.batches(steps):
        assert batch.strong is not None
        strong = type(batch.strong)(*(x.to(module.device) for x in batch.strong))
        for name, value in module.measure(strong).items():
            measured[name].append(float(value))
    return {name: float(np.mean(values)) for name, values in measured.items()}
