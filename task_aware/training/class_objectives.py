"""The loss of a training step for sources of classes: each asked class has its own, whose order alone is searched."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from task_aware import ops
from task_aware.data.batches import RealBatch, StrongBatch, TrainingBatch
from task_aware.models.projection import project_sources
from task_aware.models.separator import MaskNetwork
from task_aware.models.system import ClassSeparator
from task_aware.training import losses
from task_aware.training.config import LossConfig
from task_aware.training.objectives import Objectives, Stage, StepLoss


def class_waveforms(images: Tensor, labels: Tensor, asked: Tensor, slots: int) -> Tensor:
    """As `losses.class_images`, of waveforms: `[B, S, N]` -> `[B, K * slots, N]`."""
    return losses.class_images(images[:, :, None], labels, asked, slots=slots)[:, :, 0]


class ClassObjectives(Objectives):
    """The loss of a step for a `ClassSeparator`.

    On mixtures, it is the squared error of each asked class' source against its image, the cross-entropy of the class'
    probability in its own source against the frame labels, and the deep feature loss between source and image (Eq. 3).
    On real clips, it is the cross-entropy of the own clip probabilities with weak labels, and consistency with those of
    the mean teacher's sources. Of several sources of one class, the best permutation counts. The classes that are
    present are asked for, and others at random, which must be silent; on unlabelled clips, those that the detector
    finds most plausible.

    Args:
        n_asked: classes per mixture.
    """

    system: ClassSeparator

    def __init__(self, system: ClassSeparator, teacher: MaskNetwork, weights: LossConfig, *, n_asked: int) -> None:
        super().__init__(system, teacher, weights)
        self.n_asked = n_asked

    def __call__(self, batch: TrainingBatch, stage: Stage) -> StepLoss:
        """Computes the loss; the same holds as for `Objectives`."""
        terms = {} if batch.strong is None else self.mixture_terms(batch.strong, stage)
        if batch.weak is not None or batch.unlabelled is not None:
            terms |= self.clip_terms(batch.weak, batch.unlabelled)
        return self.weighted(terms)

    def mixture_terms(self, batch: StrongBatch, stage: Stage) -> dict[str, Tensor]:
        """Losses on mixtures."""
        weights = self.weights
        mixed, mixture_mel, images = self.images(batch)
        if not weights.deep_feature:
            mixed = mixed._replace(images=mixed.images.new_empty(0))  # nothing below listens to them: free their memory
        floor = self.system.mask_floor * mixture_mel[:, None]
        _, condition = self.system.condition(mixture_mel, mixed.mixture)
        asked = self.asked(batch.labels)
        estimates = self.system.separate_classes(mixture_mel, condition, asked, waveform=mixed.mixture)
        slots = self.system.slots
        targets = losses.class_images(images, batch.labels, asked, slots=slots) + floor
        features = estimates.features
        if slots == 1:
            error = losses.squared_error(estimates.mel, targets, mixture_mel, domain=weights.domain)
        else:
            allowed = losses.interchangeable(batch.labels, asked, slots)
            error, permutation = losses.pit_mse(
                estimates.mel, targets, mixture_mel, domain=weights.domain, allowed=allowed, backend=self.backend
            )
            features = ops.reorder(features, permutation, backend=self.backend)
        terms = {"mse": error.mean()}
        if not stage.through_detector or not (weights.own or weights.deep_feature):
            return terms
        student = self.system.detect_own(features, asked)
        if weights.own:
            labels = batch.frames.gather(2, asked[:, None].expand(-1, batch.frames.shape[1], -1))
            terms["own"] = losses.binary_cross_entropy(student.frame.transpose(1, 2), labels)
        if weights.deep_feature:
            with torch.no_grad():
                own = mixed._replace(images=class_waveforms(mixed.images, batch.labels, asked, slots))
                oracle = self.system.detect_sources(self.heard_images(own, targets))
            terms["deep_feature"] = losses.deep_feature_loss(
                student.sources.activations, oracle.activations, reduction=weights.deep_feature_reduction
            )
        return terms

    def clip_terms(self, weak: RealBatch | None, unlabelled: RealBatch | None) -> dict[str, Tensor]:
        """Losses on real clips, weakly labelled ones first."""
        waveform = torch.cat([part.waveform for part in (weak, unlabelled) if part is not None])
        mixture_mel = self.mel(waveform)
        alone, condition = self.system.condition(mixture_mel, waveform)
        n_weak = 0 if weak is None else len(weak.labels)
        scores = torch.rand_like(alone.clip)
        scores[n_weak:] = alone.clip[n_weak:]
        if weak is not None:
            scores[:n_weak] += weak.labels
        asked = self.system.ask(scores, self.n_asked)
        separation = self.system.separate_classes(mixture_mel, condition, asked, waveform=waveform)
        student = self.system.detect_own(separation.features, asked)
        terms = {}
        if weak is not None and self.weights.weak:
            labels = weak.labels.gather(1, asked[:n_weak])
            terms["weak"] = losses.binary_cross_entropy(student.clip[:n_weak], labels)
        if self.weights.teacher:
            with torch.no_grad():
                separation = self.system.separate_classes(
                    mixture_mel, condition, asked, self.teacher, waveform=waveform
                )
                teacher = self.system.detect_own(separation.features, asked)
            terms["teacher"] = sum(
                (nn.functional.mse_loss(x, y) for x, y in zip(student[:2], teacher[:2], strict=True)),
                start=mixture_mel.new_zeros(()),
            )
        return terms

    def asked(self, labels: Tensor) -> Tensor:
        """The classes to ask for, `[B, K]`: those of the labels `[B, S]`, then others at random."""
        scores = torch.rand(len(labels), len(self.system.detector.labels), device=labels.device)
        present = torch.zeros_like(scores).scatter_reduce(
            1, labels.clamp_min(0), (labels >= 0).to(scores.dtype), reduce="amax"
        )
        return self.system.ask(scores + present, self.n_asked)

    @torch.no_grad()
    def measure(self, batch: StrongBatch) -> dict[str, Tensor]:
        """Measures how far the sources have separated.

        `sdr_gain`: SI-SDR of the sources' waveforms less that of the mixture, in dB, the mean over the classes of
        mixtures with two rows or more (0 where there is no such mixture), and over the sources of each.
        """
        mixed, mixture_mel, _ = self.images(batch)
        _, condition = self.system.condition(mixture_mel, mixed.mixture)
        asked, present = batch.labels.clamp_min(0), batch.labels >= 0
        masked = self.system.separate_classes(mixture_mel, condition, asked, waveform=mixed.mixture).mel
        estimates = project_sources(mixed.mixture, masked, mixture_mel, self.system.detector.feature_config)
        slots = self.system.slots
        targets = class_waveforms(mixed.images, batch.labels, asked, slots)
        counted = self.system.each_slot(present & (present.sum(1, keepdim=True) > 1))
        if slots > 1:
            classes = self.system.each_slot(asked.new_tensor(range(asked.shape[1])).expand_as(asked))
            order = ops.pit_loss(estimates, targets, kind="snr", classes=classes, backend=self.backend).permutation
            estimates = ops.reorder(estimates, order, backend=self.backend)
            counted = counted & (targets.square().sum(-1) > 0)
        gain = losses.si_sdr(estimates, targets) - losses.si_sdr(mixed.mixture[:, None], targets)
        counted = counted.to(gain.dtype)
        return {"sdr_gain": (gain * counted).sum() / counted.sum().clamp_min(1)}
