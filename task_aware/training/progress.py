"""What a run shows while it goes on: its curves as a picture, and in TensorBoard how a clip is separated so far."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from task_aware.data.labels import Event
from task_aware.models.projection import project_sources
from task_aware.models.system import Separator
from task_aware.training.folder import last_checkpoint, read_history


class EpochEnd(Callback):
    """Shows something at the end of each epoch, or of fewer of them, so that it takes at most `share` of the time."""

    share: float
    _earliest = 0.0

    def show(self, trainer: Trainer) -> None:
        raise NotImplementedError

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        begin = time.monotonic()
        if trainer.is_global_zero and begin >= self._earliest:
            self.show(trainer)
            end = time.monotonic()
            self._earliest = end + (end - begin) / self.share


class Curves(EpochEnd):
    """Renews the picture of the curves, `training.png` in `out`, once a checkpoint shows that this run owns `out`."""

    share = 0.01

    def __init__(self, out: Path) -> None:
        self.out = out

    def show(self, trainer: Trainer) -> None:
        if last_checkpoint(self.out).is_file():
            for logger in trainer.loggers:
                logger.save()
            draw_curves(self.out)


def draw_curves(out: Path) -> None:
    """Draws `training.png` of the run in `out`."""
    from task_aware.plots import plot_training  # not above: matplotlib

    plot_training(out / "training.png", read_history(out))


class Preview(EpochEnd):
    """Shows a clip as the system separates it so far: the picture of `separation.png`, and the sources' sound.

    Args:
        system: mask network and detector.
        samples: the clip `[N]` at the detector's sample rate.
        reference: its true events.
        title: what it is called.
    """

    share = 0.05

    def __init__(self, system: Separator, samples: np.ndarray, reference: Sequence[Event] | None, title: str) -> None:
        self.system, self.samples, self.reference, self.title = system, samples, reference, title

    @torch.no_grad()
    def show(self, trainer: Trainer) -> None:
        from task_aware.plots.canvas import pixels  # not above: matplotlib
        from task_aware.plots.separation import draw_analysis, worth_showing

        system, front_end = self.system, self.system.detector.feature_config
        waveform = torch.from_numpy(self.samples).to(system.detector.mean.device)[None]
        training = system.training
        system.eval()
        mel = front_end.mel(waveform, backend=system.backend)
        analysis = system.analyse(mel, waveform)
        system.train(training)
        rows = worth_showing(system, analysis)
        names = [system.source_names[k] for k in analysis.asked[0, rows].tolist()]
        sources = project_sources(waveform, analysis.separation.mel[:, rows], mel, front_end)[0] if len(rows) else ()
        figure = draw_analysis(None, system, mel, analysis, reference=self.reference, estimated=None, title=self.title)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                board, step = logger.experiment, trainer.global_step
                board.add_image("clip/separation", pixels(figure)[..., :3], step, dataformats="HWC")
                for name, sound in zip(["mixture", *names], [waveform[0], *sources], strict=True):
                    board.add_audio(f"clip/{name}", sound.clamp(-1, 1), step, front_end.sample_rate)
