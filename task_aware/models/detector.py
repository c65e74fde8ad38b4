"""The detector protocol: what a frozen network must provide, the features it reads, and how it is frozen."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from task_aware.models.features import FeatureConfig
from task_aware.models.options import MEDIAN_FRAMES


class Detection(NamedTuple):
    """A detector's output for a batch of clips.

    Attributes:
        frame: probabilities per output frame and class, `[B, T', C]`.
        clip: probabilities per clip and class, `[B, C]`.
        activations: outputs of the layers that the deep feature loss compares, each `[B, ...]`.
    """

    frame: Tensor
    clip: Tensor
    activations: list[Tensor]


@runtime_checkable
class Detector(Protocol):
    """A sound event detector through which a separator can be trained: an `nn.Module` with these attributes.

    Attributes:
        labels: the C classes, in the order of the outputs.
        feature_config: the front end that computes its input, scaled log-mel `[B, F, T]`.
        mean, std: the scaler of the features, `[F]`, dB.
        frame_seconds: seconds between two output frames.

    A detector may also have `median_frames`, the length of the median filter in decoding its events (default: 7).
    """

    labels: tuple[str, ...]
    feature_config: FeatureConfig
    mean: Tensor
    std: Tensor
    frame_seconds: float

    def __call__(self, features: Tensor) -> Detection: ...


def features_of(detector: Detector, mel: Tensor) -> Tensor:
    """Converts linear mel `[..., F, T]` to the scaled log-mel features that a detector reads, of the same shape."""
    front_end = detector.feature_config
    return front_end.scale(front_end.log_mel(mel), detector.mean, detector.std)


def median_frames_of(detector: Detector) -> int:
    """Length of the median filter in decoding a detector's events, output frames."""
    return getattr(detector, "median_frames", MEDIAN_FRAMES)


def keep_precision(rnn: nn.RNNBase) -> None:
    """Makes a recurrent layer compute in the dtype of its weights, even under autocast on CUDA.

    Under autocast cuDNN's layers run in float16, even if autocast's dtype is bfloat16. The range of float16 is too
    small for the gradients of an unscaled loss, and training in bfloat16 does not scale the loss.
    """
    vars(rnn).setdefault("forward", functools.partial(_in_own_precision, rnn))


def _in_own_precision(rnn: nn.RNNBase, input: Any, hx: Any = None) -> Any:
    """Runs the layer's own forward on a tensor or a packed sequence, from a state or (LSTM) a pair of states."""
    forward, states = type(rnn).forward, [] if hx is None else [hx]
    if not (input.is_cuda and torch.is_autocast_enabled("cuda")):
        return forward(rnn, input, *states)
    dtype = next(rnn.parameters()).dtype
    with torch.autocast("cuda", enabled=False):
        return forward(rnn, input.to(dtype), *(_of_dtype(state, dtype) for state in states))


def _of_dtype(state: Any, dtype: torch.dtype) -> Any:
    return tuple(part.to(dtype) for part in state) if isinstance(state, tuple) else state.to(dtype)


def freeze(detector: nn.Module) -> nn.Module:
    """Puts a detector into evaluation mode and freezes its weights; gradients still flow through it to its input.

    Recurrent layers stay in training mode, because cuDNN has no gradient for them in evaluation mode; without dropout
    they compute the same in both modes. Under autocast they keep the precision of their weights.
    """
    detector.eval().requires_grad_(False)
    for module in detector.modules():
        if isinstance(module, nn.RNNBase):
            keep_precision(module)
            module.dropout = 0.0
            module.train()
    return detector
