"""What is checked of a listener before it is used or trained through, and what is said of one that fails."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor, nn

from task_aware import Predictor
from task_aware.models.detector import Detection
from task_aware.models.protocol import check_listener, check_trainable

from .test_listener import Embedding, LoudnessListener, altered, class_system


class Detached(LoudnessListener):
    def forward(self, waveform: Tensor) -> Detection:
        return super().forward(waveform.detach())


class Steep(LoudnessListener):
    """Its root has no gradient on silence."""

    def forward(self, waveform: Tensor) -> Detection:
        frame, clip, activations = super().forward(waveform)
        return Detection(frame, clip, [activations[0].sqrt()])


class FrameDetached(LoudnessListener):
    """Only its activations have a gradient."""

    def forward(self, waveform: Tensor) -> Detection:
        frame, clip, activations = super().forward(waveform)
        return Detection(frame.detach(), clip, activations)


class WithoutNumbers(LoudnessListener):
    def forward(self, waveform: Tensor) -> Detection:
        frame, clip, activations = super().forward(waveform)
        return Detection(frame * (waveform.sum() / waveform.sum()), clip, activations)


class Sharing(LoudnessListener):
    """Levels the clips of a batch by the loudest of all."""

    def forward(self, waveform: Tensor) -> Detection:
        return super().forward(waveform / waveform.abs().max().clamp_min(1e-6))


class Remembering(LoudnessListener):
    """Keeps a state from call to call, as streaming models do."""

    state: Tensor | float = 0.0

    def forward(self, waveform: Tensor) -> Detection:
        frame, clip, activations = super().forward(waveform)
        self.state = self.state * 0.5 + activations[0].mean()
        return Detection(frame, clip, [activations[0] + self.state])


@pytest.mark.parametrize(
    ("listener", "message"),
    [
        (Detached, "no gradient flows from frame of mine back"),
        (FrameDetached, "no gradient flows from frame of mine back"),
        (Steep, "gradient of mine on digital silence is not finite"),
        (Remembering, "a gradient through mine fails .*must forget"),
    ],
)
def test_what_cannot_be_trained_through_is_said_at_once_and_can_still_be_listened_with(listener, message):
    detector = check_listener(listener(), "mine")
    with pytest.raises(ValueError, match=message):
        check_trainable(detector, "mine")
    samples = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert Predictor(detector).analyse_waveform(samples, 16000).scores.shape == (50, 2)
    assert Predictor(class_system(listener())).analyse_waveform(samples, 16000).scores.shape == (50, 2)


def test_a_sound_listener_may_be_trained_through():
    check_trainable(check_listener(LoudnessListener(), "mine"), "mine")
    check_trainable(check_listener(Embedding(), "mine"), "mine")
    with pytest.raises(ValueError, match="no gradient"):
        check_trainable(Detached(), "mine")  # also if it is not wrapped


@pytest.mark.parametrize(
    ("listener", "message"),
    [
        (nn.Identity(), "lacks labels, sample_rate, frame_seconds; see docs/listeners.md"),
        (altered(labels="Speech"), "must be a tuple of unique class names"),
        (altered(labels=("Speech",)), r"with 1 labels and frame_seconds=0.02, expected \[2, 500, 1\]"),
        (altered(sample_rate=8000.0), "whole number of Hz"),
        (altered(frame_seconds=0.04), r"expected \[2, 250, 2\]"),
        (altered(frame_seconds=0.0199999), "1.99999 times the front end's"),
        (WithoutNumbers(), "frame is NaN in silence"),
        (Sharing(), "depends on the other clips of a batch"),
    ],
)
def test_what_a_listener_lacks_is_named(listener, message):
    with pytest.raises(ValueError, match=message):
        check_listener(listener, "mine")
