"""The separation baseline of DCASE 2020 task 4: a denoiser of waveforms before a frozen detector (SEP+SED).

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
from task_aware.base.errors import CheckpointError
from task_aware.models.crnn import CRNN
from task_aware.models.detector import Detection, features_of, freeze
from task_aware.models.separator import DepthwiseConv1d, GlobalLayerNorm, pointwise

#: The two outputs, which are fixed: no permutation is searched.
BACKGROUND, FOREGROUND = 0, 1

WINDOW_SECONDS, HOP_SECONDS = 0.032, 0.008


@dataclass(frozen=True)
class DenoiserConfig:
    """Sizes of the denoiser.

    Attributes:
        sample_rate: Hz; it sets the transform, with windows of 32 ms every 8 ms.
        bottleneck: channels of the residual trunk.
        hidden: channels of the depthwise convolutions.
        blocks: convolution blocks per repeat, dilations 1, 2, ... 2^(blocks-1).
        repeats: how often the dilations start over.
    """

    sample_rate: int = 16000
    bottleneck: int = 256
    hidden: int = 512
    blocks: int = 8
    repeats: int = 4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"denoiser.{name} is {value}; it must be at least 1")


#: The baseline's 32 blocks, and one for a laptop.
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
        """`[B, bottleneck, T]` -> the same."""
        expand, activation, first_norm, depthwise, second_activation, second_norm, project = self.layers
        hidden = first_norm(activation(pointwise(x, expand, backend=backend)))
        hidden = cast(DepthwiseConv1d, depthwise).activated(hidden, cast(nn.PReLU, second_activation), backend)
        return x + self.scale * pointwise(second_norm(hidden), project, backend=backend)


def mixture_consistency(estimates: Tensor, mixture: Tensor, weights: Tensor) -> Tensor:
    """Spreads what the estimates lack of the mixture over them, so that they sum to it.

    Args:
        estimates: `[B, S, N]`.
        mixture: `[B, N]`.
        weights: share of each estimate, `[B, S]`, summing to 1.
    """
    lacking = mixture - estimates.sum(1)
    return estimates + weights[..., None] * lacking[:, None]


class Denoiser(nn.Module):
    """Splits mixtures into background and foreground by sigmoid masks on their Fourier transform.

    TDCN++: blocks of rising dilation, each scaled by `0.9^b` at first, and a 1x1 convolution from the start of each
    repeat to the starts of all later ones.

    Attributes:
        backend: of the operators; a system sets its own.
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
        """`[B, N]` -> background and foreground `[B, 2, N]`, which sum to the mixture; N is at least 257 at 16 kHz."""
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
    """Frame probabilities `[B, T', C]` of the mixture, of the foreground, and half the sum of both."""

    mixture: Tensor
    foreground: Tensor
    average: Tensor


class DenoisedDetector(nn.Module):
    """SEP+SED: a frozen detector hears the mixture and the denoised foreground, and its answers are averaged.

    Args:
        denoiser: waveforms `[B, N]` -> `[B, 2, N]`.
        detector: its front end and scaler serve both.
        backend: of the operators.
    """

    def __init__(self, denoiser: Denoiser, detector: CRNN, *, backend: ops.Backend = "auto") -> None:
        super().__init__()
        if detector.feature_config.sample_rate != denoiser.config.sample_rate:
            raise ValueError(
                f"the denoiser works at {denoiser.config.sample_rate} Hz and the detector at "
                f"{detector.feature_config.sample_rate}; give both one rate"
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
        """The detector's answer to `[B, N]`."""
        mel = self.detector.feature_config.mel(waveform, backend=self.backend)
        return self.detector(features_of(self.detector, mel))

    @torch.no_grad()
    def denoise(self, waveform: Tensor) -> Tensor:
        """The foreground of mixtures: `[B, N]` -> `[B, N]`."""
        return self.denoiser(waveform)[:, FOREGROUND].contiguous()

    def detect(self, waveform: Tensor) -> LateDetection:
        """Detections with and without averaging, of mixtures `[B, N]`."""
        mixture, foreground = self.hear(waveform).frame, self.hear(self.denoise(waveform)).frame
        return LateDetection(mixture, foreground, 0.5 * (mixture + foreground))

    def save(self, path: str | os.PathLike[str], **notes: Any) -> None:
        """Writes denoiser and detector; `notes` are kept beside them."""
        content = {
            "denoiser": asdict(self.denoiser.config),
            "detector": self.detector.describe(),
            "notes": notes,
        }
        checkpoint.write(path, "denoiser", self.state_dict(), content)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], *, backend: ops.Backend = "auto") -> DenoisedDetector:
        """Opens what `python -m task_aware.train_sep` wrote, in evaluation mode.

        Raises:
            CheckpointError: the file is missing, cut off, foreign, of a newer format or of another kind.
        """
        tensors, content = checkpoint.read(path, "denoiser")
        try:
            detector = CRNN.from_description(content["detector"], path)
            denoiser = Denoiser(DenoiserConfig(**content["denoiser"]))
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"the description of the denoiser in {path} is incomplete ({error})") from error
        system = cls(denoiser, detector, backend=backend)
        checkpoint.load_weights(system, tensors, path)
        return system.eval()
