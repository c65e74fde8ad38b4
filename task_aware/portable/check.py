"""Checks exported files against their model, times them, and explains failures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from task_aware.base.errors import TaskAwareError
from task_aware.inference.predictor import Predictor
from task_aware.models.crnn import CRNN
from task_aware.models.opening import detector_of
from task_aware.models.system import listen
from task_aware.portable.formats import Run, noise

#: Largest allowed difference between the probabilities of an exported file and those of the model.
TOLERANCE = 1e-4


def own_run(model: nn.Module) -> Run:
    """The model as `python -m task_aware.infer` runs it."""
    predictor = Predictor(model, device="cpu")
    front_end = predictor.detector.feature_config

    def run(waveform: Tensor) -> Tensor:
        mel = front_end.mel(waveform, backend="auto" if predictor.separator is None else predictor.separator.backend)
        return listen(predictor.model, mel)

    return run


@torch.no_grad()
def largest_difference(run: Run, own: Run, lengths: Sequence[int]) -> float:
    """The largest difference in probabilities, on batches of one and three clips of noise of each length."""
    clips = [noise(n_clips, n_samples) for n_samples in lengths for n_clips in (1, 3)]
    return max(float((run(clip) - own(clip)).abs().max()) for clip in clips)


@torch.no_grad()
def real_time_factor(run: Run, seconds: float, sample_rate: int, repeats: int = 20) -> float:
    """Computing time per second of audio for one clip: the fastest repetition, since other programs only add time."""
    clip = noise(1, round(seconds * sample_rate))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(clip)
        times.append(time.perf_counter() - start)
    return min(times) / seconds


@contextmanager
def explaining(model: nn.Module, name: str) -> Iterator[None]:
    """Turns an error of an exporter or runtime into one sentence that says what to do."""
    try:
        yield
    except (TaskAwareError, OSError):
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}"
        raise TaskAwareError(f"this model cannot be exported to {name} ({reason}); {advice(model)}") from error


def advice(model: nn.Module) -> str:
    """What to change if a file cannot be written, or differs from its model."""
    detector = detector_of(model)
    if isinstance(detector, CRNN):
        return "try another version of torch"
    return (
        f"the forward of {type(detector).__name__} must use tensors only, without Python numbers or branches that "
        "depend on their values, and must work for any batch size (x.shape[0], not len(x)); see docs/export.md"
    )


def describe(model: nn.Module, seconds: float | None) -> dict[str, object]:
    """What a user of an exported file needs to know (`model.json`)."""
    detector = detector_of(model)
    predictor = Predictor(model, device="cpu")
    return {
        "labels": list(detector.labels),
        "sample_rate": detector.feature_config.sample_rate,
        "seconds": seconds,
        "frame_seconds": detector.frame_seconds,
        "threshold": predictor.threshold,
        "median_frames": predictor.median_frames,
    }
