"""The mask network: Conv-TasNet's separator on mel frames instead of a learned basis (Luo and Mesgarani, 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from task_aware import ops
from task_aware.models.causal import LeftContext

#: The largest numbers of blocks (the dilation doubles with each) and of repeats, and of everything else.
LARGEST = {"blocks": 24, "repeats": 64}
LARGEST_WIDTH = 1 << 20


@dataclass(frozen=True)
class MaskNetworkConfig:
    """Sizes of the mask network.

    Attributes:
        n_mels: number of mel bands F of the mixture.
        n_sources: number of masks S.
        bottleneck: channels of the residual path (Bn).
        hidden: channels of the depthwise convolutions (H).
        skip: channels of the skip connections (Sc).
        blocks: convolution blocks per repeat, with dilations 1, 2, ... 2^(blocks-1) (X).
        repeats: number of repeats of these blocks (R).
        causal: depend on past frames alone: convolutions are padded on the left, and norms are over the channels of
            each frame.
        conditioning: channels of what the detector found in the mixture, given beside its features; 0 for none.
    """

    n_mels: int = 128
    n_sources: int = 5
    bottleneck: int = 64
    hidden: int = 128
    skip: int = 64
    blocks: int = 5
    repeats: int = 3
    causal: bool = False
    conditioning: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least, largest = int(name not in ("causal", "conditioning")), LARGEST.get(name, LARGEST_WIDTH)
            if not least <= value <= largest:
                raise ValueError(f"separator.{name} is {value}; give {least} to {largest}")


#: The sizes in the paper's text, sizes that match its "3M parameters", and sizes for a laptop; see docs/recipes.md.
PRESETS: dict[str, dict[str, int]] = {
    "conv_tasnet_text": {"bottleneck": 64, "hidden": 128, "skip": 64, "blocks": 5, "repeats": 3},
    "conv_tasnet_3m": {"bottleneck": 128, "hidden": 512, "skip": 128, "blocks": 5, "repeats": 3},
    "medium": {"bottleneck": 96, "hidden": 192, "skip": 96, "blocks": 5, "repeats": 2},
    "small": {"bottleneck": 64, "hidden": 128, "skip": 64, "blocks": 5, "repeats": 2},
}


def preset(name: str, *, n_mels: int, n_sources: int, causal: bool = False) -> MaskNetworkConfig:
    """The sizes called `name` for `n_mels` bands and `n_sources` masks."""
    if name not in PRESETS:
        raise ValueError(f"no separator preset is called {name!r}; choose from {', '.join(sorted(PRESETS))}")
    return MaskNetworkConfig(n_mels=n_mels, n_sources=n_sources, causal=causal, **PRESETS[name])


class GlobalLayerNorm(nn.Module):
    """gLN: zero mean and unit variance over channels and time of each item, then a gain and a bias per channel."""

    def __init__(self, channels: int, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` -> `[B, C, T]`; the variance is the biased one."""
        return nn.functional.group_norm(x, 1, self.weight, self.bias, self.eps)


class ChannelLayerNorm(GlobalLayerNorm):
    """cLN: like gLN, but over the channels of each frame."""

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` -> `[B, C, T]`; the variance is the biased one."""
        frames = x.transpose(1, 2)
        return nn.functional.layer_norm(frames, self.weight.shape, self.weight, self.bias, self.eps).transpose(1, 2)


def norm(config: MaskNetworkConfig, channels: int) -> GlobalLayerNorm:
    """Makes a cLN for a causal network, otherwise a gLN."""
    return ChannelLayerNorm(channels) if config.causal else GlobalLayerNorm(channels)


def pointwise(x: Tensor, *layers: nn.Module, backend: ops.Backend) -> Tensor:
    """Applies 1x1 convolutions to one input `[B, C, T]` at once and concatenates their outputs over channels.

    On the CPU this is one matrix product, which needs no change of memory layout, unlike a convolution.
    """
    convolutions = cast(tuple[nn.Conv1d, ...], layers)
    if backend == "reference":
        return torch.cat([convolution(x) for convolution in convolutions], 1)
    weight, bias = convolutions[0].weight, cast(Tensor, convolutions[0].bias)
    if len(convolutions) > 1:
        weight = torch.cat([convolution.weight for convolution in convolutions])
        bias = torch.cat([cast(Tensor, convolution.bias) for convolution in convolutions])
    if x.is_cuda:
        return nn.functional.conv1d(x, weight, bias)
    if torch.is_autocast_enabled("cpu"):
        weight = weight.to(torch.get_autocast_dtype("cpu"))  # once, instead of a copy for each item
    return torch.baddbmm(bias[:, None], weight.flatten(1).expand(len(x), -1, -1), x)


class DepthwiseConv1d(nn.Conv1d):
    """A dilated depthwise convolution over three frames, centred on each frame or, if causal, ending at it."""

    def __init__(self, channels: int, dilation: int, *, causal: bool) -> None:
        padding = 0 if causal else dilation
        super().__init__(channels, channels, 3, padding=padding, dilation=dilation, groups=channels)
        self.causal = causal
        self.context = LeftContext(2 * dilation) if causal else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T]` -> `[B, C, T]`."""
        return super().forward(self.context(x))

    def activated(self, x: Tensor, activation: nn.PReLU, backend: ops.Backend) -> Tensor:
        """Applies the convolution and the activation after it, fused into one operator."""
        if backend == "reference":
            return activation(self(x))
        assert self.bias is not None
        dilation = self.dilation[0]
        x = self.context(x)
        out = ops.depthwise_prelu(x, self.weight[:, 0], self.bias, activation.weight, dilation, backend=backend)
        return out[..., dilation:-dilation] if self.causal else out  # what is centred on a frame ends `dilation` later


class ConvBlock(nn.Module):
    """1x1 convolution, PReLU, norm, dilated depthwise convolution, PReLU, norm; a residual and a skip output."""

    def __init__(self, config: MaskNetworkConfig, dilation: int) -> None:
        super().__init__()
        hidden = config.hidden
        self.shared = nn.Sequential(
            nn.Conv1d(config.bottleneck, hidden, 1),
            nn.PReLU(),
            norm(config, hidden),
            DepthwiseConv1d(hidden, dilation, causal=config.causal),
            nn.PReLU(),
            norm(config, hidden),
        )
        self.residual = nn.Conv1d(hidden, config.bottleneck, 1)
        self.skip = nn.Conv1d(hidden, config.skip, 1)

    def forward(self, x: Tensor, total: Tensor | None, backend: ops.Backend) -> tuple[Tensor, Tensor]:
        """Maps `[B, bottleneck, T]` and the sum of earlier skip outputs `[B, skip, T]`, if any, to the next ones."""
        expand, activation, first_norm, depthwise, second_activation, second_norm = self.shared
        if not (x.is_cuda or backend == "reference" or isinstance(first_norm, ChannelLayerNorm)):
            return self.fused(x, total, backend)
        hidden = first_norm(activation(pointwise(x, expand, backend=backend)))
        hidden = cast(DepthwiseConv1d, depthwise).activated(hidden, cast(nn.PReLU, second_activation), backend)
        both = pointwise(second_norm(hidden), self.residual, self.skip, backend=backend)
        residual, skip = both.split([self.residual.out_channels, self.skip.out_channels], 1)
        return x + residual, skip if total is None else total + skip

    def fused(self, x: Tensor, total: Tensor | None, backend: ops.Backend) -> tuple[Tensor, Tensor]:
        """The same in one operator, for gLN on the CPU."""
        expand, activation, first_norm, depthwise, second_activation, second_norm = cast(Any, self.shared)
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        if total is None:
            total = x.new_zeros(x.shape[0], x.shape[2], self.skip.out_channels).mT
        return ops.conv_block(
            x,
            total,
            expand.weight.flatten(1),
            expand.bias,
            activation.weight,
            first_norm.weight,
            first_norm.bias,
            depthwise.weight.flatten(1),
            depthwise.bias,
            second_activation.weight,
            second_norm.weight,
            second_norm.bias,
            self.residual.weight.flatten(1),
            cast(Tensor, self.residual.bias),
            self.skip.weight.flatten(1),
            cast(Tensor, self.skip.bias),
            depthwise.dilation[0],
            first_norm.eps,
            backend=backend,
        )


class MaskNetwork(nn.Module):
    """Computes mask logits from the mixture's scaled log-mel features.

    A norm (gLN, or cLN if causal), a 1x1 bottleneck, `repeats` x `blocks` convolution blocks whose skip outputs are
    summed, PReLU and a 1x1 convolution to `n_sources * n_mels` logits. The sigmoid is part of `ops.mel_mask`.

    Attributes:
        backend: backend of the operators; set by the system that contains the network.
    """

    backend: ops.Backend = "auto"

    def __init__(self, config: MaskNetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.bottleneck = nn.Sequential(norm(config, config.n_mels), nn.Conv1d(config.n_mels, config.bottleneck, 1))
        if config.conditioning:
            self.condition = nn.Conv1d(config.conditioning, config.bottleneck, 1)
        self.blocks = nn.ModuleList(
            ConvBlock(config, 2**x) for _ in range(config.repeats) for x in range(config.blocks)
        )
        self.mask = nn.Sequential(nn.PReLU(), nn.Conv1d(config.skip, config.n_sources * config.n_mels, 1))

    def forward(self, features: Tensor, condition: Tensor | None = None, asked: Tensor | None = None) -> Tensor:
        """Maps features to mask logits.

        Args:
            features: scaled log-mel, `[B, F, T]`.
            condition: what the detector found in the mixture, `[B, conditioning, T]`; for a conditioned network.
            asked: the masks to compute, int64 `[B, K]`; default: all S.

        Returns:
            Logits `[B, K, F, T]`, or `[B, S, F, T]`.
        """
        first_norm, bottleneck = self.bottleneck
        x = pointwise(first_norm(features), bottleneck, backend=self.backend)
        if condition is not None:
            x = x + pointwise(condition.to(x.dtype), self.condition, backend=self.backend)
        total = None
        for block in self.blocks:
            x, total = block(x, total, self.backend)
        activation, mask = self.mask
        sizes = (self.config.n_sources, self.config.n_mels)
        if asked is None:
            return pointwise(activation(total), mask, backend=self.backend).unflatten(1, sizes)
        mask = cast(nn.Conv1d, mask)
        weight = mask.weight.flatten(1).unflatten(0, sizes)[asked].flatten(1, 2)  # [B, K * F, skip]
        bias = cast(Tensor, mask.bias).unflatten(0, sizes)[asked].flatten(1, 2)
        if torch.is_autocast_enabled(features.device.type):
            weight = weight.to(torch.get_autocast_dtype(features.device.type))
        return torch.baddbmm(bias[:, :, None].to(weight.dtype), weight, activation(total)).unflatten(1, (-1, sizes[1]))
