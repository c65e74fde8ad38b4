"""The LightningModule that trains a detector as the DCASE 2020 baseline does: with labels and a mean teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from lightning import LightningModule
from torch import Tensor, nn

from task_aware import ops
from task_aware.data.batches import RealBatch, StrongBatch, TrainingBatch
from task_aware.models.crnn import CRNN
from task_aware.models.detector import Detection, features_of
from task_aware.training.config import DetectorTrainingConfig
from task_aware.training.losses import binary_cross_entropy
from task_aware.training.schedule import cosine, seed_step, update_average, warmup


class DetectorModule(LightningModule):
    """Trains `detector` on `BCE strong + BCE weak + w (MSE strong + MSE weak)`, the MSE to a mean teacher.

    Strong clips are dynamic mixtures. The weight `w` of the consistency follows the ramp of the learning rate.

    Args:
        detector: the detector, with its scaler set.
        config: schedule and weights.
        seed: random seed of dropout and of the teacher's noise, which depend on (seed, step) only.
        backend: backend of the operators.
    """

    def __init__(
        self, detector: CRNN, config: DetectorTrainingConfig, *, seed: int = 0, backend: ops.Backend = "auto"
    ) -> None:
        super().__init__()
        self.detector = detector
        self.teacher: CRNN = copy.deepcopy(detector).requires_grad_(False)
        self.config = config
        self.seed = seed
        self.backend: ops.Backend = backend

    @property
    def kept(self) -> CRNN:
        """The network to save: the student or the teacher, by `config.keep`."""
        return self.teacher if self.config.keep == "teacher" else self.detector

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        optimiser = torch.optim.Adam(self.detector.parameters(), self.config.learning_rate, fused=True)

        def factor(step: int) -> float:
            return self.ramp(step) * (cosine(step, self.config.max_steps) if self.config.cosine_decay else 1.0)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def ramp(self, step: int) -> float:
        """The warm-up factor of the learning rate and of the consistency weight."""
        return warmup(step, self.config.warmup_steps)

    def on_train_batch_start(self, batch: TrainingBatch, batch_idx: int) -> None:
        seed_step(self.seed, self.global_step, self.global_rank)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        parts = [part for part in (batch.weak, batch.unlabelled) if part is not None]
        assert batch.strong is not None
        terms = self.real_terms(batch.weak, torch.cat([part.waveform for part in parts])) if parts else {}
        terms |= self.strong_terms(batch.strong)
        consistency = self.config.consistency * self.ramp(self.global_step)
        weighted = [value * (consistency if "consistency" in name else 1.0) for name, value in terms.items()]
        total = torch.stack(weighted).sum()
        self.log_dict({f"train/{name}": value.detach() for name, value in terms.items()})
        self.log("train/loss", total.detach())
        return total

    def strong_terms(self, batch: StrongBatch) -> dict[str, Tensor]:
        with torch.no_grad():
            mixed = ops.reverb_mix(batch.sources, batch.rirs, batch.gains, batch.background, backend=self.backend)
        student, teacher = self.detect(mixed.mixture)
        strong = binary_cross_entropy(student.frame, batch.frames)
        return {"strong": strong, "strong_consistency": self.consistency(student, teacher)}

    def real_terms(self, weak: RealBatch | None, waveform: Tensor) -> dict[str, Tensor]:
        student, teacher = self.detect(waveform)
        terms = {"real_consistency": self.consistency(student, teacher)}
        if weak is not None:
            terms["weak"] = binary_cross_entropy(student.clip[: len(weak.labels)], weak.labels)
        return terms

    def detect(self, waveform: Tensor) -> tuple[Detection, Detection]:
        """Student's and teacher's detections in waveforms `[B, N]`; the teacher's features have noise added."""
        with torch.no_grad():
            mel = self.detector.feature_config.mel(waveform, backend=self.backend)
            features = features_of(self.detector, mel)
            rms = features.square().mean((-2, -1), keepdim=True).sqrt()
            noisy = features + rms * 10 ** (-self.config.teacher_noise_db / 20) * torch.randn_like(features)
            teacher = self.teacher(noisy)
        return self.detector(features), teacher

    @staticmethod
    def consistency(student: Detection, teacher: Detection) -> Tensor:
        """Sum of the MSE of frame probabilities and that of clip probabilities."""
        frame = nn.functional.mse_loss(student.frame, teacher.frame)
        return frame + nn.functional.mse_loss(student.clip, teacher.clip)

    def on_train_batch_end(self, *_: object) -> None:
        update_average(self.teacher, self.detector, self.global_step, self.config.ema_decay)


@torch.no_grad()
def fit_scaler(detector: CRNN, batches: Iterable[TrainingBatch], *, backend: ops.Backend = "auto") -> None:
    """Sets the detector's `mean` and `std` (in dB, per mel band) from all frames of all clips in `batches`."""
    front_end = detector.feature_config
    count, total, total_squared = (
        0,
        torch.zeros_like(detector.mean).double(),
        torch.zeros_like(detector.std).double(),
    )
    for batch in batches:
        waveforms = [part.waveform for part in (batch.weak, batch.unlabelled) if part is not None]
        if batch.strong is not None:
            strong = batch.strong
            waveforms.append(
                ops.reverb_mix(strong.sources, strong.rirs, strong.gains, strong.background, backend=backend).mixture
            )
        for waveform in waveforms:
            decibel = front_end.log_mel(front_end.mel(waveform, backend=backend)).double()
            count += decibel.shape[0] * decibel.shape[2]
            total += decibel.sum((0, 2))
            total_squared += decibel.square().sum((0, 2))
    mean = total / count
    detector.mean.copy_(mean)
    detector.std.copy_((total_squared / count - mean.square()).clamp_min(1e-6).sqrt())
