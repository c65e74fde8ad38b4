"""Checks that a user's own detector follows the detector protocol, before anything is trained through it."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from task_aware.models.detector import Detection, Detector, freeze
from task_aware.models.features import FeatureConfig

#: Attributes that a detector must have besides `forward`.
ATTRIBUTES = ("labels", "feature_config", "mean", "std", "frame_seconds")

#: Length of the silence that a detector is tried with, seconds.
PROBE_SECONDS = 10.0


def check_protocol(detector: Any, name: str) -> None:
    """Checks a detector's attributes and runs it on silence.

    Raises ValueError with a message that names what is missing or wrong.
    """
    if not isinstance(detector, nn.Module):
        raise ValueError(f"{name} returns a {type(detector).__name__}; a detector must be a torch.nn.Module")
    if missing := [attribute for attribute in ATTRIBUTES if not hasattr(detector, attribute)]:
        raise ValueError(f"the detector of {name} lacks {', '.join(missing)}; see docs/detectors.md")
    front_end = detector.feature_config
    if not isinstance(front_end, FeatureConfig):
        raise ValueError(f"{name}: feature_config is a {type(front_end).__name__}; it must be a FeatureConfig")
    labels = detector.labels
    if isinstance(labels, str) or not labels or len(set(cast(Any, labels))) != len(cast(Any, labels)):
        raise ValueError(f"{name}: labels is {labels!r}; it must be a tuple of unique class names")
    kept = dict(detector.named_buffers()) | dict(detector.named_parameters())
    for attribute in ("mean", "std"):
        if attribute not in kept:
            raise ValueError(
                f"{name}: {attribute} does not move with the module to a device; set it with register_buffer"
            )
        if tuple(kept[attribute].shape) != (front_end.n_mels,):
            raise ValueError(
                f"{name}: {attribute} has the shape {list(kept[attribute].shape)}; expected [{front_end.n_mels}], in dB"
            )
    if not (kept["std"] > 0).all():
        raise ValueError(f"{name}: std must be above 0 in all bands, as features are divided by it")
    _check_answer(cast(Detector, freeze(detector)), name, n_classes=len(cast(Any, labels)))


def _check_answer(detector: Detector, name: str, n_classes: int) -> None:
    front_end = detector.feature_config
    n_frames = front_end.n_frames(round(PROBE_SECONDS * front_end.sample_rate))
    features = torch.zeros(2, front_end.n_mels, n_frames, requires_grad=True)
    answer = detector(features)
    if not isinstance(answer, Detection):
        raise ValueError(
            f"{name}: forward returns a {type(answer).__name__}; it must return Detection(frame, clip, activations)"
        )
    frame, clip, activations = answer
    expected = round(n_frames * front_end.frame_seconds / detector.frame_seconds)
    if frame.dim() != 3 or frame.shape[::2] != (2, n_classes) or abs(frame.shape[1] - expected) > 1:
        raise ValueError(
            f"{name}: frame has the shape {list(frame.shape)} for features of the shape {list(features.shape)}; with "
            f"{n_classes} labels and frame_seconds={detector.frame_seconds:g}, expected [2, {expected}, {n_classes}]"
        )
    if tuple(clip.shape) != (2, n_classes):
        raise ValueError(f"{name}: clip has the shape {list(clip.shape)}; expected [2, {n_classes}]")
    for kind, values in (("frame", frame), ("clip", clip)):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"{name}: {kind} holds values outside [0, 1]; return probabilities instead of logits")
    ratio = detector.frame_seconds / front_end.frame_seconds
    if round(ratio) < 1 or not math.isclose(ratio, round(ratio), rel_tol=1e-6):
        raise ValueError(
            f"{name}: frame_seconds={detector.frame_seconds:g} is {ratio:g} times the front end's "
            f"{front_end.frame_seconds:g} s per frame; it must be a whole multiple"
        )
    if not activations or any(not isinstance(x, Tensor) or x.shape[:1] != (2,) for x in activations):
        raise ValueError(f"{name}: activations must be a list of at least one tensor, each [B, ...]")
    if not frame.requires_grad:
        raise ValueError(
            f"{name}: no gradient flows from frame back to the features; forward must not use no_grad, detach or NumPy"
        )


@torch.no_grad()
def output_frames(detector: Detector, n_samples: int) -> int:
    """Number of output frames T' for a clip of `n_samples` samples, found by running the detector on silence."""
    front_end = detector.feature_config
    features = torch.zeros(1, front_end.n_mels, front_end.n_frames(n_samples), device=detector.mean.device)
    return detector(features).frame.shape[1]
