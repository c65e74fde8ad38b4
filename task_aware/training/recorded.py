"""The loss of a step and its gradients as two CUDA graphs, which are recorded once and then replayed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from task_aware.data.batches import TrainingBatch
from task_aware.training.objectives import Objectives, Stage, StepLoss


def tensors_of(batch: TrainingBatch) -> list[Tensor]:
    """The tensors of all parts of a batch, in order."""
    return [tensor for part in batch if part is not None for tensor in part]


def batch_of(tensors: Sequence[Tensor], like: TrainingBatch) -> TrainingBatch:
    """The inverse of `tensors_of`, for a batch with the same parts as `like`."""
    rest = iter(tensors)
    parts = (None if part is None else type(part)(*islice(rest, len(part))) for part in like)
    return TrainingBatch(*parts)  # type: ignore[arg-type]


class _OfTensors(nn.Module):
    """`objectives` as a function of a batch's tensors, under the autocast that was active when this was created.

    It is a module, because `make_graphed_callables` takes the weights that get gradients from a module.
    """

    def __init__(self, objectives: Objectives, trained: nn.Module, like: TrainingBatch, stage: Stage) -> None:
        super().__init__()
        self.objectives = objectives
        self.trained = trained
        self.like = like
        self.stage = stage
        dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        self.autocast = torch.autocast("cuda", dtype, enabled, cache_enabled=False)

    def forward(self, *tensors: Tensor) -> StepLoss:
        with self.autocast:
            return self.objectives(batch_of(tensors, self.like), self.stage)


class RecordedObjectives:
    """Calls `objectives` as two CUDA graphs, one forward and one backward.

    The host then launches two graphs per step instead of thousands of kernels, which helps where the GPU waits for the
    host, as with small batches and networks. Graphs are recorded at the first call, and again if the stage or a shape
    changes; until then their GPU memory stays in use. Each batch is copied to the tensors of the recording. Weights
    must be updated in place, as optimisers do.

    Args:
        objectives: a function of batch and stage that never waits for values on the device.
        trained: the module whose weights get gradients.
    """

    def __init__(self, objectives: Objectives, trained: nn.Module) -> None:
        self.objectives = objectives
        self.trained = trained
        self._recorded_for: object = None
        self._replay: Callable[..., Any] | None = None

    def forget(self) -> None:
        """Frees the memory of the recording, which reference cycles hold until a garbage collection."""
        self._recorded_for = self._replay = None
        gc.collect()

    def __call__(self, batch: TrainingBatch, stage: Stage) -> StepLoss:
        shapes = [None if part is None else [tensor.shape for tensor in part] for part in batch]
        if (stage, shapes) != self._recorded_for:
            self.forget()
            kept = batch_of([tensor.clone() for tensor in tensors_of(batch)], batch)
            objectives = _OfTensors(self.objectives, self.trained, kept, stage)
            with torch.autocast("cuda", enabled=False):  # `objectives` enters its own in forward; backward has none
                self._replay = torch.cuda.make_graphed_callables(
                    objectives, tuple(tensors_of(kept)), allow_unused_input=True
                )
            self._recorded_for = (stage, shapes)
        assert self._replay is not None
        return self._replay(*tensors_of(batch))
