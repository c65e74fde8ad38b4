"""Decodes frame probabilities into events, as the DCASE 2020 task 4 baseline does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from task_aware.data.labels import Event

if TYPE_CHECKING:
    import torch


def decode(
    frame: np.ndarray | torch.Tensor,
    labels: Sequence[str],
    frame_seconds: float,
    *,
    threshold: float = 0.5,
    median_frames: int = 7,
    duration: float = 10.0,
) -> list[Event]:
    """Decodes the frame probabilities of one clip into events, as the DCASE 2020 task 4 baseline does.

    Frames with a probability of at least `threshold` are active. A median filter (reflected at both ends) smooths the
    binary track of each class, and each run of active frames is an event.

    Args:
        frame: probabilities [T', C], one column per label; a tensor on any device and of any floating type, or an
            array.
        labels: the C classes.
        frame_seconds: length of a frame; frame t covers [t, t + 1) * frame_seconds.
        threshold: probability from which on a class is active.
        median_frames: length of the median filter, frames.
        duration: length of the clip in seconds, at which events are cut (the last frame may extend beyond it).

    Returns:
        The events sorted by onset, then label.

    Raises:
        ValueError: the shape is another, a probability is NaN, or an option is out of range.
    """
    probabilities = check_probabilities(_array(frame), labels)
    if median_frames < 1:
        raise ValueError(f"median_frames is {median_frames}; it must be 1 (no filter) or more.")
    if not frame_seconds > 0:
        raise ValueError(f"frame_seconds is {frame_seconds}; it must be above 0.")
    if probabilities.size == 0:  # no frames, or no classes
        return []
    active = np.stack([_median(track, median_frames) for track in (probabilities >= threshold).T], axis=1)
    silence = np.zeros((1, len(labels)), dtype=np.int8)
    steps = np.diff(active.astype(np.int8), axis=0, prepend=silence, append=silence)
    events = []
    for index, label in enumerate(labels):
        onsets = np.flatnonzero(steps[:, index] == 1) * frame_seconds
        offsets = np.flatnonzero(steps[:, index] == -1) * frame_seconds
        for onset, offset in zip(onsets, offsets, strict=True):
            if onset < duration:
                events.append(Event(float(onset), min(float(offset), float(duration)), label))
    return sorted(events, key=lambda event: (event.onset, event.label))


def _median(active: np.ndarray, size: int) -> np.ndarray:
    """A median filter over a track `[T']`, reflected at both ends, as SciPy has it; that is slow to import."""
    before = size // 2
    reflected = np.pad(active, (before, size - 1 - before), mode="symmetric")
    counts = np.cumsum(np.pad(reflected, (1, 0)))
    return counts[size:] - counts[:-size] >= size - before


def check_probabilities(frame: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Returns the frame probabilities of one clip.

    Raises ValueError if they are not [T', C] for the C labels, or hold NaN.
    """
    if frame.ndim != 2 or frame.shape[1] != len(labels):
        raise ValueError(
            f"frame has the shape {list(frame.shape)}, expected [T', {len(labels)}]: "
            "the frame probabilities of one clip, with a column per label."
        )
    if np.isnan(frame).any():
        raise ValueError("frame holds NaN instead of probabilities; check the detector's input and weights.")
    return frame


def frame_edges(n_frames: int, frame_seconds: float, seconds: float) -> np.ndarray:
    """Edges of the frames in seconds, `[n + 1]`: n is `n_frames` without those that would begin at the end."""
    edges = np.minimum(np.arange(n_frames + 1) * frame_seconds, seconds)
    return edges[: 1 + np.count_nonzero(np.diff(edges))]


def _array(frame: Any) -> np.ndarray:
    if hasattr(frame, "detach"):
        frame = frame.detach().cpu()
        if frame.element_size() < 4:  # numpy has no bfloat16
            frame = frame.float()
        return frame.numpy()
    return np.asarray(frame)
