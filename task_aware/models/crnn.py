"""The baseline of DCASE 2020 task 4: a convolutional recurrent network (CRNN) of the detector protocol."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from task_aware import ops
from task_aware.base import checkpoint
from task_aware.base.errors import CheckpointError
from task_aware.models.causal import CausalGRU, LeftContext
from task_aware.models.detector import MEDIAN_FRAMES, Detection, keep_precision
from task_aware.models.features import FeatureConfig


@dataclass(frozen=True)
class CRNNConfig:
    """Sizes of the CRNN; the defaults are the baseline's (1,112,420 parameters with ten classes).

    Attributes:
        filters: output channels of each convolution block.
        pooling: (time, mel) average pooling of each block; the mel factors multiply to the number of mel bands.
        rnn_cells: units of each GRU direction.
        rnn_layers: GRU layers.
        dropout: share of activations dropped in training.
        batch_norm_momentum: weight of a new batch in the running statistics (the baseline's 0.99 makes them those of
            the last batch; smaller batches want less).
        initialisation: `baseline` starts the gates' and heads' linear maps at N(0, 0.01), from where a training of
            thousands of steps leaves; `unit` keeps the variance of activations and the rate of positive frames.
        clip_pooling: how frame probabilities p become those of the clip: the baseline's `attention`, or without
            weights of its own `linear_softmax`, `sum_t(p^2) / sum_t(p)`, or `max`.
        median_frames: length of the median filter that events are decoded with, in output frames.
        causal: look back alone: convolutions padded on the left in time, a GRU in one direction instead of two.
        lookahead: output frames that are heard before a frame is answered, in a causal detector. An answer without
            delay comes late: what tells of an onset is heard after it.
    """

    filters: tuple[int, ...] = (16, 32, 64, 128, 128, 128, 128)
    pooling: tuple[tuple[int, int], ...] = ((2, 2), (2, 2), (1, 2), (1, 2), (1, 2), (1, 2), (1, 2))
    rnn_cells: int = 128
    rnn_layers: int = 2
    dropout: float = 0.5
    batch_norm_momentum: float = 0.99
    initialisation: Literal["baseline", "unit"] = "baseline"
    clip_pooling: Literal["attention", "linear_softmax", "max"] = "attention"
    median_frames: int = MEDIAN_FRAMES
    causal: bool = False
    lookahead: int = 0

    def __post_init__(self) -> None:
        if len(self.filters) != len(self.pooling):
            raise ValueError(
                f"detector.filters names {len(self.filters)} blocks and detector.pooling {len(self.pooling)}; "
                "give one (time, mel) pair per block"
            )
        if self.median_frames < 1:
            raise ValueError(f"detector.median_frames is {self.median_frames}; give 1 (no filter) or more")
        if self.lookahead < 0 or (self.lookahead and not self.causal):
            raise ValueError(f"detector.lookahead is {self.lookahead}; give 0, or with detector.causal more")


class TimeMelConv2d(nn.Conv2d):
    """A 3x3 convolution whose kernel is stored as (time, mel), as the baseline's, over features as (mel, time).

    So the features are read as the operators write them, without being transposed first. Where causal, a frame hears
    itself and the two before it.
    """

    def __init__(self, channels: int, filters: int, *, causal: bool) -> None:
        super().__init__(channels, filters, 3, padding=(1, 0) if causal else 1)
        self.causal = causal
        self.context = LeftContext(2) if causal else nn.Identity()

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with weights `[C', C, time, mel]` in place of its own."""
        return self._conv_forward(self.context(x), weight.transpose(2, 3), bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, F, T]` -> `[B, C', F, T]`."""
        return self.convolve(x, self.weight, self.bias)


class GatedLinear(nn.Module):
    """The baseline's GLU: a linear map over channels at each position, gated by the sigmoid of its own input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, F, T]` -> `[B, C, F, T]`."""
        linear = nn.functional.conv2d(x, self.linear.weight[:, :, None, None], self.linear.bias)
        return linear * torch.sigmoid(x)


class GatedBlock(nn.Sequential):
    """Convolution, batch norm, gated linear map, dropout and average pooling, `[B, C, F, T]` -> `[B, C', F', T']`."""

    def __init__(self, channels: int, filters: int, pooling: tuple[int, int], config: CRNNConfig) -> None:
        time, mel = pooling
        super().__init__(
            TimeMelConv2d(channels, filters, causal=config.causal),
            nn.BatchNorm2d(filters, eps=1e-3, momentum=config.batch_norm_momentum),
            GatedLinear(filters),
            nn.Dropout(config.dropout),
            nn.AvgPool2d((mel, time)),
        )

    def evaluate(self, x: Tensor, backend: ops.Backend) -> Tensor:
        """The block in evaluation mode: the norm is folded into the convolution, gate and pooling are one operator.

        So is a convolution of one channel with them, on the CPU.
        """
        convolution, norm = cast(TimeMelConv2d, self[0]), cast(nn.BatchNorm2d, self[1])
        gate, pooling = cast(GatedLinear, self[2]), cast(nn.AvgPool2d, self[4])
        assert norm.running_mean is not None and norm.running_var is not None and convolution.bias is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        bias = (convolution.bias - norm.running_mean) * scale + norm.bias
        weight = convolution.weight * scale[:, None, None, None]
        linear, pool = gate.linear, cast(tuple[int, int], pooling.kernel_size)
        if x.shape[1] == 1 and not x.is_cuda and not convolution.causal:
            if torch.is_autocast_enabled("cpu"):
                x = x.to(torch.get_autocast_dtype("cpu"))  # as its convolution alone would
            kernel = weight[:, 0].mT
            return ops.conv_glu_pool(x[:, 0], kernel, bias, linear.weight, linear.bias, pool, backend=backend)
        x = convolution.convolve(x, weight, bias)
        return ops.glu_pool(x, linear.weight, linear.bias, pool, backend=backend)


def _single(logits: Tensor) -> Tensor:
    """In float32 where autocast made less of them: a probability above 0.998 is 1 in bfloat16."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class CRNN(nn.Module):
    """Gated convolution blocks, a GRU, and an attention head: the DCASE 2020 task 4 baseline, or a causal one.

    `frame = sigmoid(dense(x))`, `attention = clamp(softmax(dense_softmax(x)), 1e-7, 1)` over the classes,
    `clip = sum_t(frame * attention) / sum_t(attention)`; or without `dense_softmax`, as `config.clip_pooling` says.

    Attributes:
        backend: of the operators in evaluation mode; `reference` evaluates layer by layer, as in training.
        lookahead: as in the sizes; a stream sets it to 0 and shifts the answers itself.
    """

    mean: Tensor
    std: Tensor
    backend: ops.Backend = "auto"

    def __init__(self, config: CRNNConfig, labels: tuple[str, ...], feature_config: FeatureConfig) -> None:
        super().__init__()
        pooled_mels = feature_config.n_mels / math.prod(mel for _, mel in config.pooling)
        if pooled_mels != 1:
            raise ValueError(
                f"the detector's pooling leaves {pooled_mels:g} of {feature_config.n_mels} mel bands; "
                "the mel factors of detector.pooling must multiply to features.n_mels"
            )
        self.config = config
        self.labels = tuple(labels)
        self.feature_config = feature_config
        self.time_pooling = math.prod(time for time, _ in config.pooling)
        self.frame_seconds = feature_config.frame_seconds * self.time_pooling
        self.median_frames = config.median_frames
        self.lookahead = config.lookahead
        self.register_buffer("mean", torch.zeros(feature_config.n_mels))
        self.register_buffer("std", torch.ones(feature_config.n_mels))

        self.blocks = nn.ModuleList()
        channels = 1
        for filters, pooling in zip(config.filters, config.pooling, strict=True):
            self.blocks.append(GatedBlock(channels, filters, pooling, config))
            channels = filters
        gru, directions = (CausalGRU, 1) if config.causal else (nn.GRU, 2)
        self.rnn = gru(channels, config.rnn_cells, config.rnn_layers, batch_first=True, bidirectional=not config.causal)
        keep_precision(self.rnn)
        self.dropout = nn.Dropout(config.dropout)
        self.dense = nn.Linear(directions * config.rnn_cells, len(self.labels))
        if config.clip_pooling == "attention":
            self.dense_softmax = nn.Linear(directions * config.rnn_cells, len(self.labels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weights anew, as `config.initialisation` says."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight, gain=math.sqrt(2))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.GRU):
                for weight in module.parameters():
                    if weight.dim() > 1:
                        nn.init.orthogonal_(weight)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)
        if self.config.initialisation == "unit":
            for module in self.modules():
                if isinstance(module, GatedLinear):
                    nn.init.xavier_uniform_(module.linear.weight, gain=2.0)  # a gate halves what it passes
            nn.init.xavier_uniform_(self.dense.weight)
            if self.config.clip_pooling == "attention":
                nn.init.xavier_uniform_(self.dense_softmax.weight)
            nn.init.constant_(self.dense.bias, math.log(0.1 / 0.9))

    def output_frames(self, n_samples: int) -> tuple[int, float]:
        """Output frames T' of a clip of `n_samples` samples, and the seconds between them."""
        n_frames = self.feature_config.n_frames(n_samples)
        for time, _ in self.config.pooling:
            n_frames //= time
        return n_frames, self.frame_seconds

    def forward(self, features: Tensor) -> Detection:
        """Scaled log-mel `[B, F, T]` -> `Detection`; the activations are the blocks' and the GRU's."""
        x = nn.functional.pad(features, (0, self.lookahead * self.time_pooling)).unsqueeze(1)
        activations = []
        layer_by_layer = self.training or self.backend == "reference"
        for block in self.blocks:
            x = block(x) if layer_by_layer else cast(GatedBlock, block).evaluate(x, self.backend)
            activations.append(x)
        x = x.squeeze(2).transpose(1, 2)
        native = not (layer_by_layer or x.is_cuda or self.config.causal)
        x = ops.gru(x, self.rnn, backend=self.backend) if native else self.rnn(x)[0]
        activations.append(x)
        x = self.dropout(x[:, self.lookahead :])
        frame = torch.sigmoid(_single(self.dense(x)))
        return Detection(frame, self._pool(frame, x), activations)

    def _pool(self, frame: Tensor, x: Tensor) -> Tensor:
        """Clip probabilities `[B, C]` of frame probabilities `[B, T', C]` and what they were computed from."""
        if self.config.clip_pooling == "max":
            return frame.amax(1)
        if self.config.clip_pooling == "linear_softmax":
            weight = frame.clamp_min(1e-7)
        else:
            weight = torch.softmax(_single(self.dense_softmax(x)), dim=-1).clamp(1e-7, 1)
        return (frame * weight).sum(1) / weight.sum(1)

    def describe(self) -> dict[str, Any]:
        """Sizes, labels and front end, JSON-able: what `from_description` builds the same detector from."""
        return {
            "architecture": "crnn",
            "crnn": asdict(self.config),
            "labels": list(self.labels),
            "features": asdict(self.feature_config),
        }

    @staticmethod
    def from_description(description: Mapping[str, Any], where: str | os.PathLike[str]) -> CRNN:
        """An untrained detector of the described sizes; errors name the file `where` it was read."""
        try:
            if description["architecture"] != "crnn":
                raise CheckpointError(f"{where} holds a {description['architecture']!r} detector; only crnn is known")
            sizes = dict(description["crnn"])
            sizes["filters"] = tuple(sizes["filters"])
            sizes["pooling"] = tuple((time, mel) for time, mel in sizes["pooling"])
            features = FeatureConfig(**description["features"])
            return CRNN(CRNNConfig(**sizes), tuple(description["labels"]), features)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"the description of the detector in {where} is incomplete ({error})") from error

    def save(self, path: str | os.PathLike[str], **notes: Any) -> None:
        """Writes weights and description; `notes` (how it was trained, its scores) are kept beside them."""
        checkpoint.write(path, "detector", self.state_dict(), {"detector": self.describe(), "notes": notes})


def load_detector(path: str | os.PathLike[str]) -> CRNN:
    """Opens a detector that `python -m task_aware.train_sed` wrote, in evaluation mode.

    Raises:
        CheckpointError: the file is missing, cut off, foreign, of a newer format or of another kind.
    """
    tensors, content = checkpoint.read(path, "detector")
    detector = CRNN.from_description(content["detector"], path)
    checkpoint.load_weights(detector, tensors, path)
    return detector.eval()
