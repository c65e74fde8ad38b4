"""The baseline of DCASE 2020 task 4: a convolutional recurrent network (CRNN) that follows the detector protocol."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor, nn

from task_aware import ops
from task_aware.base import checkpoint
from task_aware.base.errors import CheckpointError
from task_aware.models.causal import CausalGRU, LeftContext
from task_aware.models.detector import Detection, keep_precision
from task_aware.models.features import FeatureConfig
from task_aware.models.options import CRNNConfig
from task_aware.ops.conv_glu_pool import MOST_CHANNELS_ON_CUDA

#: With fewer channels, `ops.conv3x3` is no faster than a convolution of PyTorch.
LEAST_CHANNELS = 16


class TimeMelConv2d(nn.Conv2d):
    """A 3x3 convolution over (mel, time) features whose kernel is stored as (time, mel), as in the baseline.

    This way the features need not be transposed after the operators. If causal, the kernel covers a frame and the two
    before it.
    """

    def __init__(self, channels: int, filters: int, *, causal: bool) -> None:
        super().__init__(channels, filters, 3, padding=(1, 0) if causal else 1)
        self.causal = causal
        self.context = LeftContext(2) if causal else nn.Identity()

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolves with weights `[C', C, time, mel]` instead of the layer's own."""
        return self._conv_forward(self.context(x), weight.transpose(2, 3), bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, F, T]` -> `[B, C', F, T]`."""
        return self.convolve(x, self.weight, self.bias)


class GatedLinear(nn.Module):
    """The baseline's GLU: a linear map over channels at each position, gated by the sigmoid of its input."""

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

    #: What `fold` returned, kept where the weights do not change any more; None: each call folds.
    folded: tuple[Tensor, Tensor] | None = None

    def train(self, mode: bool = True) -> GatedBlock:
        """Sets the mode, and forgets what was folded: the weights may change, or have been copied."""
        self.folded = None
        return super().train(mode)

    def fold(self) -> tuple[Tensor, Tensor]:
        """The convolution's weight and bias with the norm folded in."""
        convolution, norm = cast(TimeMelConv2d, self[0]), cast(nn.BatchNorm2d, self[1])
        assert norm.running_mean is not None and norm.running_var is not None and convolution.bias is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        bias = (convolution.bias - norm.running_mean) * scale + norm.bias
        return convolution.weight * scale[:, None, None, None], bias

    def evaluate(self, x: Tensor, backend: ops.Backend) -> Tensor:
        """Runs the block in evaluation mode: folds the norm into the convolution and fuses gate and pooling.

        A convolution of one channel is fused with them too, on a GPU if it has few filters. On the CPU, one of many
        channels takes fewer multiplications.
        """
        convolution = cast(TimeMelConv2d, self[0])
        gate, pooling = cast(GatedLinear, self[2]), cast(nn.AvgPool2d, self[4])
        weight, bias = self.folded or self.fold()
        linear, pool = gate.linear, cast(tuple[int, int], pooling.kernel_size)
        few = convolution.out_channels <= MOST_CHANNELS_ON_CUDA or not x.is_cuda
        if x.shape[1] == 1 and few and not convolution.causal:
            if torch.is_autocast_enabled(x.device.type):
                x = x.to(torch.get_autocast_dtype(x.device.type))  # as autocast does for a convolution
            kernel = weight[:, 0].mT
            return ops.conv_glu_pool(x[:, 0], kernel, bias, linear.weight, linear.bias, pool, backend=backend)
        in_bfloat16 = x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
        if x.shape[1] >= LEAST_CHANNELS and not (x.is_cuda or convolution.causal or in_bfloat16):
            x = ops.conv3x3(x, weight.mT, bias, backend=backend)
        else:
            x = convolution.convolve(x, weight, bias)
        return ops.glu_pool(x, linear.weight, linear.bias, pool, backend=backend)


def _single(logits: Tensor) -> Tensor:
    """Converts logits to at least float32 after autocast: in bfloat16 a probability above 0.998 would be 1."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class CRNN(nn.Module):
    """Gated convolution blocks, a GRU and an attention head: the DCASE 2020 task 4 baseline, or a causal variant.

    `frame = sigmoid(dense(x))`, `attention = clamp(softmax(dense_softmax(x)), 1e-7, 1)` over the classes, and
    `clip = sum_t(frame * attention) / sum_t(attention)`. `config.clip_pooling` selects alternatives without
    `dense_softmax`.

    Attributes:
        backend: backend of the operators in evaluation mode; `reference` evaluates layer by layer, as in training.
        lookahead: as in `CRNNConfig`; a stream sets it to 0 and shifts the answers itself.
        gru_on_cuda: whether `ops.gru` runs the GRU on a GPU too. By default cuDNN does: no GPU has compared the two yet
            (`pytest benchmarks/test_gru.py -m gpu` does).
    """

    mean: Tensor
    std: Tensor
    backend: ops.Backend = "auto"
    gru_on_cuda = False

    def __init__(self, config: CRNNConfig, labels: tuple[str, ...], feature_config: FeatureConfig) -> None:
        super().__init__()
        pooled_mels = feature_config.n_mels / math.prod(mel for _, mel in config.pooling)
        if pooled_mels != 1:
            raise ValueError(
                f"the detector's pooling reduces {feature_config.n_mels} mel bands to {pooled_mels:g} instead of 1; "
                "the mel factors of crnn.pooling must multiply to features.n_mels"
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
        """Draws new weights, as `config.initialisation` specifies."""
        if self.mean.is_meta:
            return  # only shapes are asked for, and torch would import its compiler to draw nothing
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
        """Number of output frames T' for a clip of `n_samples` samples, and the seconds between them."""
        n_frames = self.feature_config.n_frames(n_samples)
        for time, _ in self.config.pooling:
            n_frames //= time
        return n_frames, self.frame_seconds

    def forward(self, features: Tensor) -> Detection:
        """Maps scaled log-mel `[B, F, T]` to a `Detection` with the activations of the blocks and the GRU."""
        x = nn.functional.pad(features, (0, self.lookahead * self.time_pooling)).unsqueeze(1)
        activations = []
        layer_by_layer = self.training or self.backend == "reference"
        for block in self.blocks:
            x = block(x) if layer_by_layer else cast(GatedBlock, block).evaluate(x, self.backend)
            activations.append(x)
        x = x.squeeze(2).transpose(1, 2)
        native = not (layer_by_layer or self.config.causal) and (self.gru_on_cuda or not x.is_cuda)
        x = ops.gru(x, self.rnn, backend=self.backend) if native else self.rnn(x)[0]
        activations.append(x)
        x = self.dropout(x[:, self.lookahead :])
        frame = torch.sigmoid(_single(self.dense(x)))
        return Detection(frame, self._pool(frame, x), activations)

    def _pool(self, frame: Tensor, x: Tensor) -> Tensor:
        """Pools frame probabilities `[B, T', C]`, computed from `x`, into clip probabilities `[B, C]`."""
        if self.config.clip_pooling == "max":
            return frame.amax(1)
        if self.config.clip_pooling == "linear_softmax":
            weight = frame.clamp_min(1e-7)
        else:
            weight = torch.softmax(_single(self.dense_softmax(x)), dim=-1).clamp(1e-7, 1)
        return (frame * weight).sum(1) / weight.sum(1)

    def describe(self) -> dict[str, Any]:
        """Sizes, labels and front end as JSON-serialisable values, from which `from_description` rebuilds the CRNN."""
        return {
            "architecture": "crnn",
            "crnn": asdict(self.config),
            "labels": list(self.labels),
            "features": asdict(self.feature_config),
        }

    @staticmethod
    def from_description(description: Mapping[str, Any], where: str | os.PathLike[str]) -> CRNN:
        """Builds an untrained detector of the described sizes; errors name the file `where` it was read."""
        with checkpoint.describing("detector", where):
            if description["architecture"] != "crnn":
                raise CheckpointError(f"{where} holds a {description['architecture']!r} detector; expected 'crnn'")
            sizes = dict(description["crnn"])
            sizes["filters"] = tuple(map(int, sizes["filters"]))
            sizes["pooling"] = tuple((int(time), int(mel)) for time, mel in sizes["pooling"])
            labels = description["labels"]
            if not (isinstance(labels, list) and labels and all(isinstance(label, str) for label in labels)):
                raise TypeError(f"labels is {labels!r}")
            features = checkpoint.config_of(FeatureConfig, description["features"])
            return CRNN(checkpoint.config_of(CRNNConfig, sizes), tuple(labels), features)

    def save(self, path: str | os.PathLike[str], **notes: Any) -> None:
        """Writes weights and description to a checkpoint, with `notes` such as training options and scores."""
        checkpoint.write(path, "detector", self.state_dict(), {"detector": self.describe(), "notes": notes})


def load_detector(path: str | os.PathLike[str]) -> CRNN:
    """Opens a detector checkpoint that `python -m task_aware.train_sed` wrote, in evaluation mode.

    Raises:
        CheckpointError: the file is missing, truncated, not a checkpoint of this package, of a newer format or of
            another kind.
    """
    tensors, content = checkpoint.read(path, "detector")
    with checkpoint.describing("detector", path):
        return checkpoint.build(lambda: CRNN.from_description(content["detector"], path), tensors, path).eval()
