"""Checks that a user's own detector or listener follows its protocol, before anything is trained through it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from task_aware.base.errors import CheckpointError
from task_aware.models.detector import Detection, Detector, freeze
from task_aware.models.features import FeatureConfig
from task_aware.models.listener import WaveformDetector

#: Attributes that a detector must have besides `forward`, and those of a listener.
ATTRIBUTES = ("labels", "feature_config", "mean", "std", "frame_seconds")
LISTENER_ATTRIBUTES = ("labels", "sample_rate", "frame_seconds")

#: Length of the silence that a detector is tried with, seconds.
PROBE_SECONDS = 10.0


def check_protocol(detector: Any, name: str) -> None:
    """Checks a detector's attributes and runs it on silence.

    Raises ValueError with a message that names what is missing or wrong.
    """
    _check_attributes(detector, name, ATTRIBUTES, "docs/detectors.md")
    front_end = detector.feature_config
    labels = detector.labels
    if not labels:
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
    n_frames = front_end.n_frames(round(PROBE_SECONDS * front_end.sample_rate))
    features = torch.zeros(2, front_end.n_mels, n_frames, requires_grad=True)
    answer = _check_answer(cast(Detector, freeze(detector)), name, features, n_frames * front_end.frame_seconds)
    if not answer.frame.requires_grad:
        raise ValueError(
            f"{name}: no gradient flows from frame back to the features; forward must not use no_grad, detach or NumPy"
        )


def check_listener(listener: Any, name: str) -> WaveformDetector:
    """Checks a listener's attributes and runs it on silence; returns it as a detector.

    Raises ValueError with a message that names what is missing or wrong. A listener without a gradient passes: it can
    be listened with (see `check_trainable`).
    """
    _check_attributes(listener, name, LISTENER_ATTRIBUTES, "docs/listeners.md")
    rate = listener.sample_rate
    if not isinstance(rate, int) or rate < 1:
        raise ValueError(f"{name}: sample_rate is {rate!r}; it must be a whole number of Hz")
    detector = cast(WaveformDetector, freeze(WaveformDetector(listener)))
    silence = torch.zeros(2, round(PROBE_SECONDS * detector.feature_config.sample_rate))
    with torch.no_grad():
        _check_answer(cast(Detector, detector), name, silence, PROBE_SECONDS)
    _check_batch(detector, name)
    return detector


def check_trainable(detector: nn.Module, name: str) -> None:
    """Checks that a separator can be trained through a listener: gradients reach the waveform, and are finite.

    They are those of `frame`, or of the activations if the listener only embeds, for a sound and for digital silence.
    Detectors of mel-spectrograms pass: they do not open without a gradient.

    Raises ValueError with a message that names what is wrong.
    """
    if hasattr(detector, "sample_rate"):  # a bare listener
        detector = check_listener(detector, name)
    if not isinstance(detector, WaveformDetector):
        return
    part = "frame" if detector.labels else "the activations"
    for kind, waveform in (
        ("a sound", _sound(detector.feature_config.sample_rate)),
        ("digital silence", torch.zeros(1, detector.feature_config.sample_rate)),
    ):
        waveform.requires_grad_()
        try:
            answer = detector(waveform)
            deciding = _sum([answer.frame] if detector.labels else answer.activations)
            gradient = None
            if deciding.requires_grad:
                (gradient,) = torch.autograd.grad(deciding, waveform, retain_graph=True, allow_unused=True)
                _sum([answer.frame, *answer.activations]).backward()  # all the way, so that what was kept is met
        except RuntimeError as error:
            raise ValueError(
                f"a gradient through {name} fails ({error}); forward must forget what it kept of the call before, "
                "and change nothing in place"
            ) from error
        if gradient is None or (kind == "a sound" and not gradient.any()):
            raise ValueError(
                f"no gradient flows from {part} of {name} back to its waveform, so that nothing can be trained "
                "through it; infer and evaluate can still hear with it what another separator finds"
            )
        if waveform.grad is not None and not waveform.grad.isfinite().all():
            raise ValueError(
                f"the gradient of {name} on {kind} is not finite, but separated sources are often silent; keep roots, "
                "logarithms and divisions in its front end away from 0"
            )


def _sound(sample_rate: int) -> Tensor:
    """A second of sound, `[1, N]`: half of it noise, half a voice-like tone."""
    time = torch.arange(sample_rate // 2) / sample_rate
    tone = sum(torch.sin(2 * torch.pi * 150 * k * time) / k for k in range(1, 12))
    noise = torch.randn(sample_rate - len(time), generator=torch.Generator().manual_seed(0))
    return torch.cat([0.1 * noise, 0.1 * tone * torch.sin(2 * torch.pi * 4 * time)])[None]


def _sum(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([part.sum() for part in parts]).sum()


@torch.no_grad()
def _check_batch(detector: WaveformDetector, name: str) -> None:
    """Checks that clips of a batch do not influence each other, apart from what a state carries on."""
    clip = _sound(detector.feature_config.sample_rate)
    part = (lambda answer: answer.frame[0]) if detector.labels else (lambda answer: answer.activations[0][0])
    alone, again, beside = (part(detector(heard)) for heard in (clip, clip, torch.cat([clip, 5 * clip.flip(1)])))
    if torch.allclose(alone, again, atol=1e-3) and not torch.allclose(alone, beside, atol=1e-3):
        raise ValueError(
            f"{name}: its answer for a clip depends on the other clips of a batch, here by up to "
            f"{float((alone - beside).abs().max()):.2g}; take maxima, means and deviations over all dimensions but the "
            "first"
        )


def _check_attributes(detector: Any, name: str, wanted: tuple[str, ...], page: str) -> None:
    if not isinstance(detector, nn.Module):
        raise ValueError(f"{name} returns a {type(detector).__name__}; a detector must be a torch.nn.Module")
    if missing := [attribute for attribute in wanted if not hasattr(detector, attribute)]:
        raise ValueError(f"the detector of {name} lacks {', '.join(missing)}; see {page}")
    front_end = getattr(detector, "feature_config", None)
    if front_end is not None and not isinstance(front_end, FeatureConfig):
        raise ValueError(f"{name}: feature_config is a {type(front_end).__name__}; it must be a FeatureConfig")
    labels: Any = detector.labels
    if isinstance(labels, str) or len(set(labels)) != len(labels):
        raise ValueError(f"{name}: labels is {labels!r}; it must be a tuple of unique class names")


def _check_answer(detector: Detector, name: str, heard: Tensor, seconds: float) -> Detection:
    """Runs a detector on two clips of `seconds` as it hears them, and checks its answer."""
    front_end, n_classes = detector.feature_config, len(detector.labels)
    answer = detector(heard)
    if not isinstance(answer, Detection):
        raise ValueError(
            f"{name}: forward returns a {type(answer).__name__}; it must return Detection(frame, clip, activations)"
        )
    frame, clip, activations = answer
    expected = round(seconds / detector.frame_seconds)
    if frame.dim() != 3 or frame.shape[::2] != (2, n_classes) or abs(frame.shape[1] - expected) > 1:
        raise ValueError(
            f"{name}: frame has the shape {list(frame.shape)} for input of the shape {list(heard.shape)}; with "
            f"{n_classes} labels and frame_seconds={detector.frame_seconds:g}, expected [2, {expected}, {n_classes}]"
        )
    if tuple(clip.shape) != (2, n_classes):
        raise ValueError(f"{name}: clip has the shape {list(clip.shape)}; expected [2, {n_classes}]")
    for kind, values in (("frame", frame), ("clip", clip)):
        if values.isnan().any():
            raise ValueError(
                f"{name}: {kind} is NaN in silence; keep divisions, roots and logarithms in its front end away from 0"
            )
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
    return answer


@torch.no_grad()
def output_frames(detector: Detector, n_samples: int) -> int:
    """Number of output frames T' for a clip of `n_samples` samples, found by running the detector on silence."""
    front_end = detector.feature_config
    hears_waveforms = isinstance(detector, WaveformDetector)
    shape = (n_samples,) if hears_waveforms else (front_end.n_mels, front_end.n_frames(n_samples))
    return detector(torch.zeros(1, *shape, device=detector.mean.device)).frame.shape[1]


def check_detector(detector: Any, labels: list[str], features: FeatureConfig, where: str) -> None:
    """Raises CheckpointError if a detector's labels or front end differ from those that `where` was made with."""
    if list(detector.labels) != list(labels):
        raise CheckpointError(
            f"{where} was made for the labels {list(labels)}, but the detector has {list(detector.labels)}; use the "
            "detector of its training"
        )
    if detector.feature_config != features:
        raise CheckpointError(f"{where} was made for {features}, but the detector uses {detector.feature_config}")
