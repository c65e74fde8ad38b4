"""The LightningModule that trains the separation baseline on the error of its signals."""

from __future__ import annotations

import torch
from lightning import LightningModule
from torch import Tensor

from task_aware import ops
from task_aware.data.batches import BatchSizes, StrongBatch, TrainingBatch
from task_aware.models.denoiser import BACKGROUND, FOREGROUND, Denoiser
from task_aware.training import losses


def batch_sizes(mixtures: int, step: int) -> BatchSizes:
    """Clips in a step; the same for all steps."""
    return BatchSizes(mixtures, 0, 0)


class DenoisingModule(LightningModule):
    """Trains `denoiser` on the thresholded signal-to-noise ratios of background and foreground, one output each.

    Args:
        denoiser: waveforms `[B, N]` -> `[B, 2, N]`.
        learning_rate: learning rate of Adam.
        backend: backend of the operators.
    """

    def __init__(self, denoiser: Denoiser, learning_rate: float, *, backend: ops.Backend = "auto") -> None:
        super().__init__()
        self.denoiser = denoiser
        self.learning_rate = learning_rate
        self.backend: ops.Backend = backend

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.denoiser.parameters(), self.learning_rate, fused=True)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        assert batch.strong is not None
        mixture, references = self.references(batch.strong)
        loss = losses.thresholded_snr(self.denoiser(mixture), references, mixture).mean(0)
        names = {BACKGROUND: "background", FOREGROUND: "foreground"}
        self.log_dict({f"train/{name}": loss[row].detach() for row, name in names.items()})
        self.log("train/loss", loss.mean().detach())
        return loss.mean()

    @torch.no_grad()
    def references(self, batch: StrongBatch) -> tuple[Tensor, Tensor]:
        """Mixtures `[B, N]`, with their background and foreground (the sum of the images) `[B, 2, N]`."""
        mixed = ops.reverb_mix(batch.sources, batch.rirs, batch.gains, batch.background, backend=self.backend)
        return mixed.mixture, torch.stack([batch.background, mixed.images.sum(1)], dim=1)
