"""The loss of a training step: runs the separator on the batch and the detector on its sources, and sums the terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from task_aware import ops
from task_aware.data.batches import RealBatch, StrongBatch, TrainingBatch
from task_aware.models.analysis import Separation, SourceDetection
from task_aware.models.listener import WaveformDetector
from task_aware.models.separator import MaskNetwork
from task_aware.models.system import Separator
from task_aware.training import losses
from task_aware.training.config import LossConfig


def split(activation: Tensor, sizes: list[int]) -> list[Tensor]:
    """Splits `[sum of sizes, ...]` into parts `[size, ...]`, with gradients in the activation's memory format."""
    if activation.dim() == 4 and activation.is_contiguous(memory_format=torch.channels_last):
        return [part.movedim(-1, 1) for part in activation.movedim(1, -1).split(sizes)]
    return list(activation.split(sizes))


class Stage(NamedTuple):
    """The stage of training, which changes at most twice in a run.

    Attributes:
        anchored: each class has a fixed slot, instead of the best permutation.
        through_detector: the detector takes part in the loss.
    """

    anchored: bool
    through_detector: bool


class StepLoss(NamedTuple):
    """The weighted sum of the terms, and each term without weight and gradient; all are scalars."""

    total: Tensor
    terms: dict[str, Tensor]


class Objectives:
    """The loss of a step, as a function of its batch and of the weights of the mask network.

    It is the weighted sum of PIT-MSE and deep feature loss on dynamic mixtures (Eq. 4), weak PIT-BCE on weakly
    labelled clips (Eq. 5), consistency with the mean teacher on weak and unlabelled clips (Eq. 6), and cross-entropy of
    the merged frame detections in mixtures.

    Args:
        system: mask network and frozen detector.
        teacher: the mean teacher of the mask network.
        weights: weights and forms of the terms.
    """

    def __init__(self, system: Separator, teacher: MaskNetwork, weights: LossConfig) -> None:
        self.system = system
        self.teacher = teacher
        self.weights = weights

    @property
    def backend(self) -> ops.Backend:
        return self.system.backend

    def __call__(self, batch: TrainingBatch, stage: Stage) -> StepLoss:
        """Computes the loss. It never waits for values on the device, so that CUDA graphs can record it."""
        strong, real = batch.strong, [part.waveform for part in (batch.weak, batch.unlabelled) if part is not None]
        mixtures: dict[str, Tensor] = {}
        waveforms: dict[str, Tensor] = {}
        if strong is not None:
            mixed, mixtures["strong"], images = self.images(strong)
            waveforms["strong"] = mixed.mixture
        if real:
            waveforms["real"] = torch.cat(real)
            mixtures["real"] = self.mel(waveforms["real"])
        separated = self.separate(mixtures, waveforms)

        terms: dict[str, Tensor] = {}
        student: dict[str, Tensor] = {}  # input of the detector, with gradients
        fixed: dict[str, Tensor] = {}  # the same, without gradients
        if strong is not None:
            floor = self.system.mask_floor * mixtures["strong"][:, None]
            terms["mse"], permutation = self.squared_error(
                strong, mixtures["strong"], images, floor, separated["strong"], anchored=stage.anchored
            )
            use_detector = stage.through_detector and (self.weights.deep_feature or self.weights.frame)
            if use_detector and permutation is not None:
                student["strong"] = ops.reorder(separated["strong"].features, permutation, backend=self.backend)
                if self.weights.deep_feature:
                    fixed["oracle"] = self.heard_images(mixed, images + floor)
        if real:
            student["real"] = separated["real"].features
            if self.weights.teacher:
                with torch.no_grad():
                    fixed["teacher"] = self.system.separate(
                        mixtures["real"], self.teacher, waveform=waveforms["real"]
                    ).features
        said = self.detect(student)
        with torch.no_grad():
            expected = self.detect(fixed)
        if strong is not None and "strong" in said:
            terms |= self.strong_terms(strong, said["strong"], expected.get("oracle"))
        if real:
            terms |= self.real_terms(batch.weak, said["real"], expected.get("teacher"))

        return self.weighted(terms)

    def weighted(self, terms: Mapping[str, Tensor]) -> StepLoss:
        """Sums the terms by their weights."""
        weighted = [getattr(self.weights, name) * value for name, value in terms.items()]
        return StepLoss(torch.stack(weighted).sum(), {name: value.detach() for name, value in terms.items()})

    @torch.no_grad()
    def mel(self, waveform: Tensor) -> Tensor:
        """Linear mel `[..., F, T]` of waveforms `[..., N]`, by the detector's front end."""
        return self.system.detector.feature_config.mel(waveform, backend=self.backend)

    @torch.no_grad()
    def images(self, batch: StrongBatch) -> tuple[ops.Mixture, Tensor, Tensor]:
        """Mixes a batch: the mixture, its mel `[B, F, T]`, and the mel of its images `[B, S, F, T]`."""
        mixed = ops.reverb_mix(batch.sources, batch.rirs, batch.gains, batch.background, backend=self.backend)
        return mixed, self.mel(mixed.mixture), self.mel(mixed.images)

    def can_join(self, batches: Mapping[str, Tensor]) -> bool:
        """Whether to run several batches `[B, ...]` as one, which is faster, but not with the reference operators."""
        of_one_length = len({x.shape[1:] for x in batches.values()}) == 1
        return len(batches) > 1 and of_one_length and self.backend != "reference"

    def heard_images(self, mixed: ops.Mixture, targets: Tensor) -> Tensor:
        """The targets of sources, linear mel `[B, S, F, T]`, as the detector hears them: features or waveforms."""
        if isinstance(self.system.detector, WaveformDetector):
            return mixed.images + self.system.mask_floor * mixed.mixture[:, None]
        return self.system.mixture_features(targets)

    def separate(self, mixtures: Mapping[str, Tensor], waveforms: Mapping[str, Tensor]) -> dict[str, Separation]:
        """Separates batches of mixtures, linear mel `[B, F, T]` and waveforms, together if they have one length."""
        if not self.can_join(waveforms):
            return {name: self.system.separate(mel, waveform=waveforms[name]) for name, mel in mixtures.items()}
        sizes = [len(mel) for mel in mixtures.values()]
        together = self.system.separate(
            torch.cat(list(mixtures.values())), waveform=torch.cat(list(waveforms.values()))
        )
        mel, features = (x.split(sizes) for x in together)
        return {name: Separation(*parts) for name, *parts in zip(mixtures, mel, features, strict=True)}

    def detect(self, features: Mapping[str, Tensor]) -> dict[str, SourceDetection]:
        """Runs the detector on batches of sources `[B, S, F, T]`, together if they have the same length."""
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
        """PIT-MSE (Eq. 2) and its permutation `[B, S]`; if anchored, the squared error with fixed slots, and None."""
        domain = self.weights.domain
        if anchored:
            per_clip = losses.anchored_mse(separation.mel, images, floor, batch.labels, mixture_mel, domain=domain)
            return per_clip.mean(), None
        pit = losses.pit_mse(separation.mel, images + floor, mixture_mel, domain=domain, backend=self.backend)
        return pit.loss.mean(), pit.permutation

    def strong_terms(
        self, batch: StrongBatch, student: SourceDetection, oracle: SourceDetection | None
    ) -> dict[str, Tensor]:
        """Losses on mixtures: frame labels, and the detector's activations for the true sources (Eq. 3)."""
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
        """Losses on real clips, weakly labelled ones first: weak PIT-BCE (Eq. 5), mean-teacher consistency (Eq. 6)."""
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
        """Measures how far the sources have separated, in mixtures of two or more events.

        `relative_loss`: the squared error, relative to that of a perfect denoiser, which puts the sum of all events
        into one source and separates nothing. `spread`: the energy outside each mixture's loudest source, relative to
        that of the targets: 0 if one source holds everything (where training may stay on a plateau), 1 for a perfect
        separation, above 1 if the sources are variants of the mixture. Where there is no such mixture they are 1 and 0:
        nothing has separated. `slot_k_energy`: share of the energy in the k-th loudest source, in all mixtures.
        """
        mixture, mixture_mel, images = self.images(batch)
        floor = self.system.mask_floor * mixture_mel[:, None]
        targets = images + floor
        estimates = self.system.separate(mixture_mel, waveform=mixture.mixture).mel
        clean_mel = self.mel(mixture.images.sum(1))
        denoised = floor.expand_as(targets).clone()
        denoised[:, 0] += clean_mel
        loss, plateau = (
            losses.pit_mse(x, targets, mixture_mel, domain=self.weights.domain, backend=self.backend).loss
            for x in (estimates, denoised)
        )
        counted = ((batch.labels >= 0).sum(1) > 1).to(loss.dtype)  # in the others, both denominators are almost 0
        if_none = 1 - counted.amax()

        def total(values: Tensor) -> Tensor:
            return (values * counted).sum()

        spread = total(losses.outside_loudest(estimates)) / total(losses.outside_loudest(targets)).clamp_min(1e-6)
        return {
            "relative_loss": total(loss) / total(plateau).clamp_min(1e-12) + if_none,
            "spread": spread,
        } | {f"slot_{k + 1}_energy": share for k, share in enumerate(losses.slot_shares(estimates))}
