"""A detector of your own: a residual network on log-mel features that gives probabilities for each frame.

PYTHONPATH=examples python -m task_aware.train --detector own_detector:make

The network and its weights are up to you. task_aware needs the attributes `labels`, `feature_config`, `mean`, `std` and
`frame_seconds` and a `forward` that returns a `Detection`. It never changes the weights.
"""

import torch
from torch import nn

from task_aware.data.labels import DESED_CLASSES
from task_aware.models.detector import Detection
from task_aware.models.features import FeatureConfig


class Residual(nn.Module):
    """Two convolutions with a shortcut connection, as in torchvision's ResNet."""

    def __init__(self, channels: int, out: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        return torch.relu(self.convolutions(x) + self.shortcut(x))


class ResNetDetector(nn.Module):
    def __init__(self, labels: tuple[str, ...], feature_config: FeatureConfig) -> None:
        super().__init__()
        self.labels = labels
        self.feature_config = feature_config
        self.frame_seconds = 4 * feature_config.frame_seconds  # two strides of 2 over time
        # Mean and standard deviation of each mel band in your training data, dB; buffers move with the module.
        self.register_buffer("mean", torch.full((feature_config.n_mels,), -40.0))
        self.register_buffer("std", torch.full((feature_config.n_mels,), 20.0))
        self.stages = nn.ModuleList(
            [Residual(1, 16, (2, 2)), Residual(16, 32, (2, 2)), Residual(32, 64, (2, 1)), Residual(64, 64, (2, 1))]
        )
        self.head = nn.Linear(64, len(labels))

    def forward(self, features: torch.Tensor) -> Detection:  # [B, F, T]
        x = features[:, None]
        activations = []
        for stage in self.stages:
            x = stage(x)
            activations.append(x)
        frame = torch.sigmoid(self.head(x.mean(2).transpose(1, 2)))  # [B, T', C]
        clip = frame.square().sum(1) / frame.sum(1)  # linear softmax pooling: active frames count most
        return Detection(frame, clip, activations)


def make(weights: str | None = None) -> ResNetDetector:
    """Makes the detector; `weights` is a file of `torch.save(detector.state_dict())`. Without it, it is untrained."""
    detector = ResNetDetector(DESED_CLASSES, FeatureConfig())
    if weights:
        detector.load_state_dict(torch.load(weights, weights_only=True))
    return detector
