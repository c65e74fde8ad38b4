"""The LightningModule that trains a mask network through a frozen detector."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from lightning import LightningModule
from torch import Tensor

from task_aware import losses, ops
from task_aware.config import LossConfig, OptimiserConfig
from task_aware.cuda_graph import RecordedObjectives
from task_aware.data.batches import RealBatch, StrongBatch, TrainingBatch
from task_aware.models.separator import MaskNetwork
from task_aware.models.system import Separation, Separator, SourceDetection

#: Steps between two measurements of how well the slots have separated.
MONITOR_EVERY = 10


def warmup(step: int, n_steps: int) -> float:
    """The exponential ramp `exp(-5 (1 - step / n_steps)^2)` from near 0 to 1 (Delphin-Poulat and Plapous, 2019)."""
    return 1.0 if step >= n_steps else math.exp(-5 * (1 - step / n_steps) ** 2)


def cosine(step: int, n_steps: int) -> float:
    """Half a cosine from 1 at step 0 to 0 at `n_steps`, and from there on."""
    return 0.0 if step >= n_steps else 0.5 * (1 + math.cos(math.pi * step / n_steps))


@torch.no_grad()
def update_average(average: torch.nn.Module, current: torch.nn.Module, step: int, decay: float) -> None:
    """Moves `average` towards `current`, decay `min(1 - 1 / (step + 1), decay)` (Tarvainen and Valpola, 2017)."""
    alpha = min(1 - 1 / (step + 1), decay)
    torch._foreach_lerp_(list(average.parameters()), list(current.parameters()), 1 - alpha)
    for kept, buffer in zip(average.buffers(), current.buffers(), strict=True):
        kept.copy_(buffer)


def split(activation: Tensor, sizes: list[int]) -> list[Tensor]:
    """Parts `[size, ...]` of `[sum of sizes, ...]`, whose gradient comes back in the activation's own memory format."""
    if activation.dim() == 4 and activation.is_contiguous(memory_format=torch.channels_last):
        return [part.movedim(-1, 1) for part in activation.movedim(1, -1).split(sizes)]
    return list(activation.split(sizes))


class Stage(NamedTuple):
    """What steps train on; it changes twice in a run at most.

    Attributes:
        anchored: each class has its slot, in place of the best permutation.
        through_detector: the detector takes part in the loss.
    """

    anchored: bool
    through_detector: bool


class Objectives(NamedTuple):
    """The weighted sum of a step's terms, and each term without weight and gradient; scalars."""

    total: Tensor
    terms: dict[str, Tensor]


class TaskAwareModule(LightningModule):
    """Trains the mask network of `system`; the weights of its detector never change.

    A step sums, each with its weight: PIT-MSE and deep feature loss of dynamic mixtures (Eq. 4), weak PIT-BCE of weakly
    labelled clips (Eq. 5), consistency with the mean teacher on weak and unlabelled clips (Eq. 6), and the
    cross-entropy of the mixtures' merged frame detections.

    Args:
        system: mask network and frozen detector.
        loss_config: weights and forms of the terms.
        optimiser_config: schedule.
        cuda_graph: record the objectives and their gradients as CUDA graphs, on one GPU.
    """

    def __init__(
        self,
        system: Separator,
        loss_config: LossConfig,
        optimiser_config: OptimiserConfig,
        *,
        cuda_graph: bool = False,
    ) -> None:
        super().__init__()
        self.system = system
        self.teacher: MaskNetwork = copy.deepcopy(system.mask_network).requires_grad_(False)
        self.weights = loss_config
        self.schedule = optimiser_config
        self.recorded = RecordedObjectives(self) if cuda_graph else None

    @property
    def backend(self) -> ops.Backend:
        return self.system.backend

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

        optimiser = torch.optim.Adam(self.system.mask_network.parameters(), schedule.learning_rate, foreach=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def stage(self, step: int) -> Stage:
        """What this step of the schedule trains on."""
        return Stage(
            anchored=step < self.schedule.anchor_steps, through_detector=step >= self.schedule.separation_steps
        )

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        total, terms = (self.recorded or self.objectives)(batch, self.stage(self.global_step))
        self.log_dict({f"train/{name}": value for name, value in terms.items()})
        self.log("train/loss", total.detach(), prog_bar=True)
        if batch.strong is not None and self.global_step % MONITOR_EVERY == 0:
            self.log_dict({f"separation/{name}": value for name, value in self.measure(batch.strong).items()})
        return total

    def objectives(self, batch: TrainingBatch, stage: Stage) -> Objectives:
        """What a step minimises: a function of batch and weights that never waits for their values."""
        strong, real = batch.strong, [part.waveform for part in (batch.weak, batch.unlabelled) if part is not None]
        mixtures: dict[str, Tensor] = {}
        if strong is not None:
            _, mixtures["strong"], images = self.images(strong)
        if real:
            mixtures["real"] = self.mel(torch.cat(real))
        separated = self.separate(mixtures)

        terms: dict[str, Tensor] = {}
        student: dict[str, Tensor] = {}  # features that the detector hears with a gradient
        fixed: dict[str, Tensor] = {}  # and without
        if strong is not None:
            floor = self.system.mask_floor * mixtures["strong"][:, None]
            terms["mse"], permutation = self.squared_error(
                strong, mixtures["strong"], images, floor, separated["strong"], anchored=stage.anchored
            )
            use_detector = stage.through_detector and (self.weights.deep_feature or self.weights.frame)
            if use_detector and permutation is not None:
                student["strong"] = ops.reorder(separated["strong"].features, permutation, backend=self.backend)
                if self.weights.deep_feature:
                    fixed["oracle"] = self.system.mixture_features(images + floor)
        if real:
            student["real"] = separated["real"].features
            if self.weights.teacher:
                with torch.no_grad():
                    fixed["teacher"] = self.system.separate(mixtures["real"], self.teacher).features
        said = self.detect(student)
        with torch.no_grad():
            expected = self.detect(fixed)
        if strong is not None and "strong" in said:
            terms |= self.strong_terms(strong, said["strong"], expected.get("oracle"))
        if real:
            terms |= self.real_terms(batch.weak, said["real"], expected.get("teacher"))

        weighted = [getattr(self.weights, name) * value for name, value in terms.items()]
        return Objectives(torch.stack(weighted).sum(), {name: value.detach() for name, value in terms.items()})

    @torch.no_grad()
    def mel(self, waveform: Tensor) -> Tensor:
        """Linear mel `[..., F, T]` of waveforms `[..., N]`, as the detector's front end has it."""
        return self.system.detector.feature_config.mel(waveform, backend=self.backend)

    @torch.no_grad()
    def images(self, batch: StrongBatch) -> tuple[ops.Mixture, Tensor, Tensor]:
        """The mixture, its mel `[B, F, T]`, and the mel of its images `[B, S, F, T]`."""
        mixed = ops.reverb_mix(batch.sources, batch.rirs, batch.gains, batch.background, backend=self.backend)
        return mixed, self.mel(mixed.mixture), self.mel(mixed.images)

    def can_join(self, batches: Mapping[str, Tensor]) -> bool:
        """Whether several batches `[B, ...]` go faster as one, which the larger ones of the reference do not."""
        of_one_length = len({x.shape[1:] for x in batches.values()}) == 1
        return len(batches) > 1 and of_one_length and self.backend != "reference"

    def separate(self, mixtures: Mapping[str, Tensor]) -> dict[str, Separation]:
        """The sources of batches of mixtures `[B, F, T]`; those of one length go through the network together."""
        if not self.can_join(mixtures):
            return {name: self.system.separate(mel) for name, mel in mixtures.items()}
        sizes = [len(mel) for mel in mixtures.values()]
        mel, features = (x.split(sizes) for x in self.system.separate(torch.cat(list(mixtures.values()))))
        return {name: Separation(*parts) for name, *parts in zip(mixtures, mel, features, strict=True)}

    def detect(self, features: Mapping[str, Tensor]) -> dict[str, SourceDetection]:
        """What the detector says of batches of sources `[B, S, F, T]`; those of one length it hears together."""
        if not self.can_join(features):
            return {name: self.system.detect_sources(x) for name, x in features.items()}
        sizes = [len(x) for x in features.values()]
        detection = self.system.detect_sources(torch.cat(list(features.values())))
        frame, clip = detection.frame.split(sizes), detection.clip.split(sizes)
        rows = [size * detection.frame.shape[1] for size in sizes]
        layers = [split(activation, rows) for activation in detection.activations]
        return {
            name: SourceDetection(frame[k], clip[k], [layer[k] for layer in layers]) for k, name in enumerate(features)
        }

    def squared_error(
        self,
        batch: StrongBatch,
        mixture_mel: Tensor,
        images: Tensor,
        floor: Tensor,
        separation: Separation,
        *,
        anchored: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """PIT-MSE (Eq. 2) with the permutation `[B, S]`; where anchored, that of a slot for each class, without one."""
        domain = self.weights.domain
        if anchored:
            per_clip = losses.anchored_mse(separation.mel, images, floor, batch.labels, mixture_mel, domain=domain)
            return per_clip.mean(), None
        pit = losses.pit_mse(separation.mel, images + floor, mixture_mel, domain=domain, backend=self.backend)
        return pit.loss.mean(), pit.permutation

    def strong_terms(
        self, batch: StrongBatch, student: SourceDetection, oracle: SourceDetection | None
    ) -> dict[str, Tensor]:
        """What the detector says of mixtures: against its labels, and against its own activations (Eq. 3)."""
        terms = {}
        if self.weights.frame:
            terms["frame"] = losses.frame_loss(student.frame, batch.frames)
        if oracle is not None:
            terms["deep_feature"] = losses.deep_feature_loss(
                student.activations, oracle.activations, reduction=self.weights.deep_feature_reduction
            )
        return terms

    def real_terms(
        self, weak: RealBatch | None, student: SourceDetection, teacher: SourceDetection | None
    ) -> dict[str, Tensor]:
        """Weak PIT-BCE (Eq. 5) and mean-teacher consistency (Eq. 6) of real clips, the weak ones first."""
        terms = {}
        if weak is not None and self.weights.weak:
            terms["weak"] = losses.weak_loss(
                student.clip[: len(weak.labels)],
                weak.labels,
                present_rows_only=self.weights.weak_present_rows_only,
                backend=self.backend,
            )
        if teacher is not None:
            terms["teacher"] = losses.teacher_loss(student[:2], teacher[:2], backend=self.backend).loss.mean()
        return terms

    @torch.no_grad()
    def measure(self, batch: StrongBatch) -> dict[str, Tensor]:
        """How far the slots have separated.

        `relative_loss`: the loss over that of the clean sum in one slot, 1 for a denoiser that separates nothing.
        `spread`: the energy outside of each clip's largest slot, over the same of the targets; 0 for a denoiser, 1 for
        a perfect separation. `slot_k_energy`: share of the k-th largest slot. The plateau on which training may
        collapse has a spread near 0.
        """
        mixture, mixture_mel, images = self.images(batch)
        floor = self.system.mask_floor * mixture_mel[:, None]
        targets = images + floor
        estimates = self.system.separate(mixture_mel).mel
        clean_mel = self.mel(mixture.images.sum(1))
        denoised = floor.expand_as(targets).clone()
        denoised[:, 0] += clean_mel
        loss, plateau = (
            losses.pit_mse(x, targets, mixture_mel, domain=self.weights.domain, backend=self.backend).loss.mean()
            for x in (estimates, denoised)
        )
        shares = losses.slot_shares(estimates)
        outside = 1 - losses.slot_shares(targets)[0]
        return {
            "relative_loss": loss / plateau.clamp_min(1e-12),
            "spread": (1 - shares[0]) / outside.clamp_min(1e-6),
        } | {f"slot_{k + 1}_energy": share for k, share in enumerate(shares)}

    def on_train_batch_end(self, *_: object) -> None:
        update_average(self.teacher, self.system.mask_network, self.global_step, self.schedule.ema_decay)

    def on_train_end(self) -> None:
        if self.recorded is not None:
            self.recorded.forget()  # its memory is for those who come after
            self.recorded = None
