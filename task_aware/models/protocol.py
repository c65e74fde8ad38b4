"""Detectors of the user's own: found by their import path, and held to the protocol before anything is trained."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from task_aware.models.detector import Detection, Detector, freeze
from task_aware.models.features import FeatureConfig

#: What a detector must have besides `forward`.
ATTRIBUTES = ("labels", "feature_config", "mean", "std", "frame_seconds")

#: Length of the features that a detector is tried with, seconds.
PROBE_SECONDS = 10.0


def check_protocol(detector: Any, name: str) -> None:
    """Tries a detector on silence.

    Raises ValueError with a sentence that names what is missing or of another kind or shape.
    """
    if not isinstance(detector, nn.Module):
        raise ValueError(f"{name} makes a {type(detector).__name__}; a detector is a torch.nn.Module")
    if missing := [attribute for attribute in ATTRIBUTES if not hasattr(detector, attribute)]:
        raise ValueError(f"the detector of {name} lacks {', '.join(missing)}; see docs/detectors.md")
    front_end = detector.feature_config
    if not isinstance(front_end, FeatureConfig):
        raise ValueError(f"{name}: feature_config is a {type(front_end).__name__}; give a FeatureConfig")
    labels = detector.labels
    if isinstance(labels, str) or not labels or len(set(cast(Any, labels))) != len(cast(Any, labels)):
        raise ValueError(f"{name}: labels are {labels!r}; give a tuple of class names, each once")
    kept = dict(detector.named_buffers()) | dict(detector.named_parameters())
    for attribute in ("mean", "std"):
        if attribute not in kept:
            raise ValueError(f"{name}: {attribute} does not move with the module; give it with register_buffer")
        if tuple(kept[attribute].shape) != (front_end.n_mels,):
            raise ValueError(f"{name}: {attribute} is {list(kept[attribute].shape)}; give [{front_end.n_mels}], in dB")
    if not (kept["std"] > 0).all():
        raise ValueError(f"{name}: std holds values that are not above 0; features are divided by it")
    _check_answer(cast(Detector, freeze(detector)), name, n_classes=len(cast(Any, labels)))


def _check_answer(detector: Detector, name: str, n_classes: int) -> None:
    front_end = detector.feature_config
    n_frames = front_end.n_frames(round(PROBE_SECONDS * front_end.sample_rate))
    features = torch.zeros(2, front_end.n_mels, n_frames, requires_grad=True)
    answer = detector(features)
    if not isinstance(answer, Detection):
        raise ValueError(
            f"{name}: forward returns a {type(answer).__name__}; return Detection(frame, clip, activations)"
        )
    frame, clip, activations = answer
    expected = round(n_frames * front_end.frame_seconds / detector.frame_seconds)
    if frame.dim() != 3 or frame.shape[::2] != (2, n_classes) or abs(frame.shape[1] - expected) > 1:
        raise ValueError(
            f"{name}: of features {list(features.shape)} the frame probabilities are {list(frame.shape)}; with "
            f"{n_classes} labels and frame_seconds={detector.frame_seconds:g}, [2, {expected}, {n_classes}] is wanted"
        )
    if tuple(clip.shape) != (2, n_classes):
        raise ValueError(f"{name}: clip probabilities are {list(clip.shape)}; [2, {n_classes}] is wanted")
    for kind, values in (("frame", frame), ("clip", clip)):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"{name}: {kind} holds values outside of 0 to 1; return probabilities, not logits")
    ratio = detector.frame_seconds / front_end.frame_seconds
    if round(ratio) < 1 or not math.isclose(ratio, round(ratio), rel_tol=1e-6):
        raise ValueError(
            f"{name}: frame_seconds={detector.frame_seconds:g} is {ratio:g} of the front end's frames of "
            f"{front_end.frame_seconds:g} s; a whole number of them is wanted"
        )
    if not activations or any(not isinstance(x, Tensor) or x.shape[:1] != (2,) for x in activations):
        raise ValueError(f"{name}: activations must be a list of one or more tensors, each [B, ...]")
    if not frame.requires_grad:
        raise ValueError(f"{name}: no gradient flows from frame to the features; remove no_grad, detach and numpy")


@torch.no_grad()
def output_frames(detector: Detector, n_samples: int) -> int:
    """Output frames T' of a clip of `n_samples` samples: what the detector answers to that much silence."""
    front_end = detector.feature_config
    features = torch.zeros(1, front_end.n_mels, front_end.n_frames(n_samples), device=detector.mean.device)
    return detector(features).frame.shape[1]
