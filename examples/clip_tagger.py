"""Turns a tagger, which only classifies whole clips, into a detector by sliding it over the clip.

PYTHONPATH=examples python -m task_aware.train --detector clip_tagger:make

The probability of a frame is the tagger's output for the window around it. Events are located to about half a window,
which is too coarse for event F1 with its collar of 0.2 s, but good enough for segments of one second.

With `window_seconds=None` the tagger runs once on the whole clip, and every frame has the same probability. This
provides no timing and no useful events, but a separator can still be trained on the clip probabilities and activations
(`--losses.frame 0 --losses.deep_feature 1 --losses.weak 1`).
"""

import torch
from torch import nn

from task_aware.data.labels import DESED_CLASSES
from task_aware.models.detector import Detection
from task_aware.models.features import FeatureConfig


class Tagger(nn.Module):
    """A placeholder for your tagger: maps log-mel `[B, F, T]` of any length to an embedding and logits `[B, C]`."""

    def __init__(self, n_mels: int, n_classes: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv1d(n_mels, 64, 5, stride=2, padding=2),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Conv1d(64, 64, 5, stride=2, padding=2),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, n_classes)

    def forward(self, features):
        embedding = self.convolutions(features).mean(-1)
        return embedding, self.head(embedding)


class SlidingTagger(nn.Module):
    """Wraps a tagger as a detector.

    Args:
        tagger: maps features `[B, F, T]` to an embedding `[B, E]` and logits `[B, C]`.
        labels: the C classes.
        feature_config: the front end.
        window_seconds: length of the window around a frame that the tagger analyses; None for the whole clip.
        frames: feature frames between two windows, that is, per output frame.
    """

    def __init__(
        self,
        tagger: nn.Module,
        labels: tuple[str, ...],
        feature_config: FeatureConfig,
        window_seconds: float | None = 1.0,
        frames: int = 16,
    ) -> None:
        super().__init__()
        self.tagger = tagger
        self.labels = labels
        self.feature_config = feature_config
        self.frames = frames
        self.frame_seconds = frames * feature_config.frame_seconds
        self.window = window_seconds and max(1, round(window_seconds / self.frame_seconds)) * frames
        # For a tagger that scales its input itself, use mean 0 and std 1, so that it gets dB.
        self.register_buffer("mean", torch.full((feature_config.n_mels,), -40.0))
        self.register_buffer("std", torch.full((feature_config.n_mels,), 20.0))

    def forward(self, features: torch.Tensor) -> Detection:  # [B, F, T]
        embedding, logits = self.tagger(features)
        clip = torch.sigmoid(logits)
        n_frames = features.shape[-1] // self.frames
        if self.window is None:
            return Detection(clip[:, None].expand(-1, n_frames, -1), clip, [embedding])
        missing = self.window - self.frames
        padded = nn.functional.pad(features, (missing // 2, missing - missing // 2), mode="replicate")
        windows = padded.unfold(-1, self.window, self.frames).transpose(1, 2)  # [B, T', F, window]
        embeddings, logits = self.tagger(windows.flatten(0, 1))
        frame = torch.sigmoid(logits).unflatten(0, (features.shape[0], -1))
        return Detection(frame, clip, [embeddings.unflatten(0, (features.shape[0], -1))])


def make() -> SlidingTagger:
    """Makes the detector. This tagger is untrained; load yours here."""
    front_end = FeatureConfig()
    return SlidingTagger(Tagger(front_end.n_mels, len(DESED_CLASSES)), DESED_CLASSES, front_end)
