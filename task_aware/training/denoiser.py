"""The LightningModule that trains the separation baseline, by signal error alone."""

from __future__ import annotations

import torch
from lightning import LightningModule
from torch import Tensor

from task_aware import ops
from task_aware.data.batches import StrongBatch, TrainingBatch
from task_aware.models.denoiser import BACKGROUND, FOREGROUND, Denoiser
from task_aware.training.separator import losses


class DenoisingModule(LightningModule):
    """Trains `denoiser` by the thresholded signal-to-noise ratio of background and foreground, each in its own output.

    Args:
        denoiser: waveforms `[B, N]` -> `[B, 2, N]`.
        learning_rate: of Adam.
        backend: of the operators.
    """

    def __init__(self, denoiser: Denoiser, learning_rate: float, *, backend: ops.Backend = "auto") -> None:
        super().__init__()
        self.denoiser = denoiser
        self.learning_rate = learning_rate
        self.backend: ops.Backend = backend

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.denoiser.parameters(), self.learning_rate)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        assert batch.strong is not None
        mixture, references = self.references(batch.strong)
        loss = losses.thresholded_snr(self.denoiser(mixture), references, mixture).mean(0)
        names = {BACKGROUND: "background", FOREGROUND: "foreground"}
        self.log_dict({f"train/{name}": loss[row].detach() for row, name in names.items()})
        self.log("train/loss", loss.mean().detach(), prog_bar=True)
        return loss.mean()

    @torch.no_grad()
    def references(self, batch: StrongBatch) -> tuple[Tensor, Tensor]:
        """Mixtures `[B, N]`, and their background and foreground `[B, 2, N]`; the latter is the sum of the images."""
        mixed = ops.reverb_mix(batch.sources, batch.rirs, batch.gains, batch.background, backend=self.backend)
        return mixed.mixture, torch.stack([batch.background, mixed.images.sum(1)], dim=1)
