"""The training loop of all training commands, with Lightning: checkpoints without pickle, exact resuming, logs."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tqdm import tqdm

from task_aware.base import checkpoint
from task_aware.base.errors import CheckpointError, Terminated
from task_aware.base.files import claim
from task_aware.models.precision import warn_if_slow
from task_aware.training.config import RunConfig
from task_aware.training.folder import (
    LOGS,
    RESULTS,
    check_new,
    check_same_options,
    clear,
    is_first_process,
    last_checkpoint,
    remove,
    write_options,
)

_log = logging.getLogger(__name__)

#: Steps between two logged values.
LOG_EVERY = 10


class SafetensorsCheckpointIO(CheckpointIO):
    """Writes Lightning's checkpoints (weights, optimiser, loops, callbacks) as one safetensors file each.

    Args:
        max_steps: length of the run in steps; a checkpoint of more steps is refused.
    """

    def __init__(self, max_steps: int) -> None:
        super().__init__()
        self.max_steps = max_steps

    def save_checkpoint(self, checkpoint_: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        tensors: dict[str, torch.Tensor] = {}
        tree = checkpoint.flatten(checkpoint_, tensors)
        checkpoint.write(path, "training", tensors, {"tree": tree})

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        tensors, content = checkpoint.read(path, "training")
        with checkpoint.describing("run", path):
            state = checkpoint.unflatten(content["tree"], tensors)
            ahead = state["global_step"] > self.max_steps
        if ahead:
            raise CheckpointError(
                f"{path} has {state['global_step']} steps already, more than the {self.max_steps} of --max-steps; give "
                "at least as many"
            )
        return state

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class LastCheckpoint(ModelCheckpoint):
    """Saves the state at the end of each epoch as `checkpoints/last.safetensors`, from which a run is resumed."""

    FILE_EXTENSION = ".safetensors"

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder,
            filename="last",
            save_top_k=1,
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )


class StepTimer(Callback):
    """Measures steps per second, and the share of the time spent waiting for data."""

    def __init__(self) -> None:
        self.steps = 0
        self.seconds = 0.0
        self.waited = 0.0
        self._last_end = 0.0

    def on_train_start(self, *_: object) -> None:
        self._last_end = time.perf_counter()

    def on_train_epoch_start(self, *_: object) -> None:
        self._last_end = time.perf_counter()

    def on_train_batch_start(self, *_: object) -> None:
        self.waited += time.perf_counter() - self._last_end

    def on_train_batch_end(self, *_: object) -> None:
        now = time.perf_counter()
        self.seconds += now - self._last_end
        self.steps += 1
        self._last_end = now

    def summary(self) -> dict[str, float]:
        """`steps_per_second`, `data_wait_share` and `peak_memory_mib` (of the GPU if there is one)."""
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            peak = torch.cuda.max_memory_allocated() / 2**20
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds = max(self.seconds, 1e-9)
        return {
            "steps_per_second": self.steps / seconds,
            "data_wait_share": self.waited / seconds,
            "peak_memory_mib": peak,
        }


class RunBar(Callback):
    """One progress bar for the whole run, where Lightning's begins anew in each epoch."""

    bar: tqdm | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
            desc="training",
            unit="step",
            disable=not trainer.is_global_zero,
        )

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: object) -> None:
        assert self.bar is not None
        if trainer.global_step % LOG_EVERY == 0:  # reading the loss waits for the device
            self.bar.set_postfix(loss=f"{float(outputs['loss']):.3g}", refresh=False)
        self.bar.update()

    def on_train_end(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, *_: object) -> None:
        self.on_train_end()


def fit(
    module: LightningModule,
    data: LightningDataModule,
    config: RunConfig,
    *,
    out: Path,
    max_steps: int,
    gradient_clip: float | None = None,
    callbacks: Sequence[Callback] = (),
) -> StepTimer:
    """Trains `module` for `max_steps` steps, with checkpoints and logs in `out`.

    A resumed run keeps its results and the options that they belong to until it has trained to its end. `callbacks`
    are called beside the loop's own.

    Raises:
        CheckpointError: `out` holds what a new run would replace; or the run is to be resumed, but `out` has no
            checkpoint, that of a run with other options, or one of more steps.
        OutputError: another command is writing to `out`.
        Terminated: the process was asked to end.
    """
    last = last_checkpoint(out)
    if is_first_process():
        claim(out)
    if config.resume and not last.is_file():
        raise CheckpointError(f"there is no {last} to resume; start without --resume")
    if config.resume:
        check_same_options(out, config)
    else:
        check_new(out)
        if is_first_process():
            clear(out)
            write_options(out, config)
    for name in ("lightning.pytorch", "lightning.fabric"):  # Lightning sets them to INFO when it is imported
        logging.getLogger(name).setLevel(logging.WARNING)
    timer = StepTimer()
    part = f"part_{len(list((out / LOGS).glob('part_*')))}"
    trainer = Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        # the trunk output of the last block is unused, so its weights never get a gradient
        strategy="ddp_find_unused_parameters_true" if config.devices > 1 else "auto",
        precision=config.precision,
        max_steps=max_steps,
        max_epochs=-1,
        reload_dataloaders_every_n_epochs=1,
        gradient_clip_val=gradient_clip,
        callbacks=[LastCheckpoint(last.parent), timer, RunBar(), *callbacks],
        enable_progress_bar=False,
        plugins=[SafetensorsCheckpointIO(max_steps)],
        logger=[TensorBoardLogger(out, name=LOGS, version=part), CSVLogger(out, name=LOGS, version=part)],
        log_every_n_steps=max(1, min(LOG_EVERY, max_steps // 2)),
        num_sanity_val_steps=0,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    warn_if_slow(config.precision, trainer.strategy.root_device)
    try:
        trainer.fit(module, data, ckpt_path=str(last) if config.resume else None, weights_only=True)
    except (SystemExit, KeyboardInterrupt):  # Lightning answers Ctrl-C with status 1, and SIGTERM with status 0
        if not trainer.interrupted:
            raise
    if trainer.received_sigterm:
        raise Terminated
    if trainer.interrupted:
        raise KeyboardInterrupt
    if is_first_process():
        remove(out, RESULTS)
        write_options(out, config)
    return timer
