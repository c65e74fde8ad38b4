"""The separation baseline of DCASE 2020 task 4: a waveform denoiser in front of a frozen detector (SEP+SED).

The network is TDCN++ (Kavalerov et al., "Universal sound separation", 2019) with mixture consistency (Wisdom et al.,
"Differentiable consistency constraints for improved deep speech enhancement", 2019).
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from task_aware import ops
from task_aware.base import checkpoint
from task_aware.models.crnn import CRNN
from task_aware.models.detector import Detection, features_of, freeze
from task_aware.models.separator import LARGEST, LARGEST_WIDTH, DepthwiseConv1d, GlobalLayerNorm, pointwise

#: Indices of the two outputs. Their order is fixed, so no permutation is searched.
BACKGROUND, FOREGROUND = 0, 1

WINDOW_SECONDS, HOP_SECONDS = 0.032, 0.008


@dataclass(frozen=True)
class DenoiserConfig:
    """Sizes of the denoiser.

    Attributes:
        sample_rate: sample rate, Hz; determines the transform, which has windows of 32 ms every 8 ms.
        bottleneck: channels of the residual path.
        hidden: channels of the depthwise convolutions.
        blocks: convolution blocks per repeat, with dilations 1, 2, ... 2^(blocks-1).
        repeats: number of repeats of these blocks.
    """

    sample_rate: int = 16000
    bottleneck: int = 256
    hidden: int = 512
    blocks: int = 8
    repeats: int = 4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            largest = LARGEST.get(name, LARGEST_WIDTH)
            if not 1 <= value <= largest:
                raise ValueError(f"denoiser.{name} is {value}; give 1 to {largest}")


#: The baseline's 32 blocks (tdcn), and a network small enough for a laptop.
PRESETS: dict[str, dict[str, int]] = {
    "tdcn": {"bottleneck": 256, "hidden": 512, "blocks": 8, "repeats": 4},
    "small": {"bottleneck": 64, "hidden": 128, "blocks": 5, "repeats": 2},
}


class FeatureNorm(nn.InstanceNorm1d):
    """Zero mean and unit variance over time of each channel, then a gain and a bias per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3, affine=True)


class TDCNBlock(nn.Module):
    """1x1 convolution, PReLU, norm, dilated depthwise convolution, PReLU, norm, scaled 1x1 convolution; residual."""

    def __init__(self, config: DenoiserConfig, dilation: int, scale: float) -> None:
        super().__init__()
        hidden = config.hidden
        self.layers = nn.Sequential(
            nn.Conv1d(config.bottleneck, hidden, 1),
            nn.PReLU(),
            FeatureNorm(hidden),
            DepthwiseConv1d(hidden, dilation, causal=False),
            nn.PReLU(),
            FeatureNorm(hidden),
            nn.Conv1d(hidden, config.bottleneck, 1),
        )
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor, backend: ops.Backend) -> Tensor:
        """`[B, bottleneck, T]` -> `[B, bottleneck, T]`."""
        expand, activation, first_norm, depthwise, second_activation, second_norm, project = self.layers
        hidden = first_norm(activation(pointwise(x, expand, backend=backend)))
        hidden = cast(DepthwiseConv1d, depthwise).activated(hidden, cast(nn.PReLU, second_activation), backend)
        return x + self.scale * pointwise(second_norm(hidden), project, backend=backend)


def mixture_consistency(estimates: Tensor, mixture: Tensor, weights: Tensor) -> Tensor:
    """Distributes the difference between the mixture and the sum of the estimates, so that they sum to the mixture.

    Args:
        estimates: `[B, S, N]`.
        mixture: `[B, N]`.
        weights: share of the difference for each estimate, `[B, S]`, summing to 1.
    """
    lacking = mixture - estimates.sum(1)
    return estimates + weights[..., None] * lacking[:, None]


class Denoiser(nn.Module):
    """Separates mixtures into background and foreground by sigmoid masks on their short-time Fourier transform.

    TDCN++: blocks of increasing dilation, with outputs scaled by `0.9^b` at initialisation, and 1x1 convolutions from
    the start of each repeat to the starts of all later ones.

    Attributes:
        backend: backend of the operators; set by the system that contains the denoiser.
    """

    window: Tensor
    backend: ops.Backend = "auto"

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        self.n_fft = round(WINDOW_SECONDS * config.sample_rate)
        self.hop = round(HOP_SECONDS * config.sample_rate)
        n_bins = self.n_fft // 2 + 1
        width = config.bottleneck
        self.bottleneck = nn.Sequential(GlobalLayerNorm(n_bins), nn.Conv1d(n_bins, width, 1))
        self.repeats = nn.ModuleList(
            nn.ModuleList(TDCNBlock(config, 2**x, 0.9 ** (r * config.blocks + x)) for x in range(config.blocks))
            for r in range(config.repeats)
        )
        self.skips = nn.ModuleList(nn.Conv1d(r * width, width, 1) for r in range(1, config.repeats))
        self.masks = nn.Conv1d(width, 2 * n_bins, 1)
        self.weights = nn.Linear(width, 2)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    def forward(self, mixture: Tensor) -> Tensor:
        """Maps `[B, N]` to background and foreground `[B, 2, N]`, which sum to it; N is at least 257 at 16 kHz."""
        spectrum = torch.stft(mixture, self.n_fft, self.hop, window=self.window, return_complex=True)
        x = self.bottleneck(spectrum.abs())
        starts: list[Tensor] = []
        for r, repeat in enumerate(self.repeats):
            if starts:
                x = x + self.skips[r - 1](torch.cat(starts, dim=1))
            starts.append(x)
            for block in cast(nn.ModuleList, repeat):
                x = block(x, self.backend)
        masks = torch.sigmoid(self.masks(x).float()).unflatten(1, (2, -1))
        estimates = torch.istft(
            (masks * spectrum[:, None]).flatten(0, 1),
            self.n_fft,
            self.hop,
            window=self.window,
            length=mixture.shape[-1],
        )
        weights = torch.softmax(self.weights(x.mean(-1)).float(), -1)
        return mixture_consistency(estimates.unflatten(0, (-1, 2)), mixture, weights)


class LateDetection(NamedTuple):
    """Frame probabilities `[B, T', C]` of the mixture, of the foreground, and their average."""

    mixture: Tensor
    foreground: Tensor
    average: Tensor


class DenoisedDetector(nn.Module):
    """SEP+SED: runs a frozen detector on the mixture and on the denoised foreground, and averages its probabilities.

    Args:
        denoiser: maps waveforms `[B, N]` to `[B, 2, N]`.
        detector: the detector, whose front end and scaler are used for both.
        backend: backend of the operators.
    """

    def __init__(self, denoiser: Denoiser, detector: CRNN, *, backend: ops.Backend = "auto") -> None:
        super().__init__()
        if detector.feature_config.sample_rate != denoiser.config.sample_rate:
            raise ValueError(
                f"the denoiser works at {denoiser.config.sample_rate} Hz, but the detector works at "
                f"{detector.feature_config.sample_rate} Hz; both need the same sample rate"
            )
        self.denoiser = denoiser
        self.detector: CRNN = freeze(detector)  # type: ignore[assignment]
        self.backend: ops.Backend = backend
        denoiser.backend = self.detector.backend = backend

    def train(self, mode: bool = True) -> DenoisedDetector:
        """Sets the denoiser's mode; the detector stays in evaluation mode."""
        super().train(mode)
        freeze(self.detector)
        return self

    @torch.no_grad()
    def hear(self, waveform: Tensor) -> Detection:
        """Runs the detector on waveforms `[B, N]`."""
        mel = self.detector.feature_config.mel(waveform, backend=self.backend)
        return self.detector(features_of(self.detector, mel))

    @torch.no_grad()
    def denoise(self, waveform: Tensor) -> Tensor:
        """Extracts the foreground of mixtures: `[B, N]` -> `[B, N]`."""
        return self.denoiser(waveform)[:, FOREGROUND].contiguous()

    def detect(self, waveform: Tensor) -> LateDetection:
        """Runs the detector on mixtures `[B, N]`, on their foreground, and averages both."""
        mixture, foreground = self.hear(waveform).frame, self.hear(self.denoise(waveform)).frame
        return LateDetection(mixture, foreground, 0.5 * (mixture + foreground))

    def save(self, path: str | os.PathLike[str], **notes: Any) -> None:
        """Writes denoiser and detector to a checkpoint, together with `notes`."""
        content = {
            "denoiser": asdict(self.denoiser.config),
            "detector": self.detector.describe(),
            "notes": notes,
        }
        checkpoint.write(path, "denoiser", self.state_dict(), content)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], *, backend: ops.Backend = "auto") -> DenoisedDetector:
        """Opens a checkpoint that `python -m task_aware.train_sep` wrote, in evaluation mode.

        Raises:
            CheckpointError: the file is missing, truncated, not a checkpoint of this package, of a newer format or of
                another kind.
        """
        tensors, content = checkpoint.read(path, "denoiser")

        def make() -> DenoisedDetector:
            denoiser = Denoiser(checkpoint.config_of(DenoiserConfig, content["denoiser"]))
            return cls(denoiser, CRNN.from_description(content["detector"], path), backend=backend)

        with checkpoint.describing("denoiser", path):
            return checkpoint.build(make, tensors, path).eval()
