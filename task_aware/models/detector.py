"""What a detector is here: the protocol that any frozen network follows, what it hears, and how it is frozen."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from task_aware.models.features import FeatureConfig

#: Output frames of the baseline's median filter.
MEDIAN_FRAMES = 7


class Detection(NamedTuple):
    """What a detector says of a batch of clips.

    Attributes:
        frame: probabilities per output frame and class, `[B, T', C]`.
        clip: probabilities per clip and class, `[B, C]`.
        activations: the layers that the deep feature loss compares, each `[B, ...]`.
    """

    frame: Tensor
    clip: Tensor
    activations: list[Tensor]


@runtime_checkable
class Detector(Protocol):
    """A sound event detector that separation can be trained through: an `nn.Module` with these attributes.

    Attributes:
        labels: the C classes, in the order of the outputs.
        feature_config: the front end whose scaled log-mel `[B, F, T]` it reads.
        mean, std: the scaler, `[F]`, dB.
        frame_seconds: seconds between two output frames.

    It may also have `median_frames`, the length of the median filter that its events are decoded with (7 without).
    """

    labels: tuple[str, ...]
    feature_config: FeatureConfig
    mean: Tensor
    std: Tensor
    frame_seconds: float

    def __call__(self, features: Tensor) -> Detection: ...


def features_of(detector: Detector, mel: Tensor) -> Tensor:
    """What a detector reads of linear mel `[..., F, T]`: its dB, scaled, of the same shape."""
    front_end = detector.feature_config
    return front_end.scale(front_end.log_mel(mel), detector.mean, detector.std)


def median_frames_of(detector: Detector) -> int:
    """Length of the median filter that a detector's events are decoded with, in output frames."""
    return getattr(detector, "median_frames", MEDIAN_FRAMES)


def keep_precision(rnn: nn.RNNBase) -> None:
    """Lets a recurrent layer compute in the dtype of its weights within autocast on CUDA too.

    cuDNN's would run in float16, also where autocast's dtype is bfloat16. Its range is too small for gradients of a
    loss that is not scaled, as none is in a training in bfloat16.
    """
    vars(rnn).setdefault("forward", functools.partial(_in_own_precision, rnn))


def _in_own_precision(rnn: nn.RNNBase, input: Any, hx: Any = None) -> Any:
    """The layer's own forward of a tensor or a packed sequence, from a state or (LSTM) a pair of states."""
    forward, states = type(rnn).forward, [] if hx is None else [hx]
    if not (input.is_cuda and torch.is_autocast_enabled("cuda")):
        return forward(rnn, input, *states)
    dtype = next(rnn.parameters()).dtype
    with torch.autocast("cuda", enabled=False):
        return forward(rnn, input.to(dtype), *(_of_dtype(state, dtype) for state in states))


def _of_dtype(state: Any, dtype: torch.dtype) -> Any:
    return tuple(part.to(dtype) for part in state) if isinstance(state, tuple) else state.to(dtype)


def freeze(detector: nn.Module) -> nn.Module:
    """Puts a detector into evaluation mode and stops its weights' gradients; gradients still flow through it.

    cuDNN has no gradient of a recurrent layer in evaluation mode. Without dropout between its layers such a layer
    computes the same in both modes, so it alone stays in training mode. Within autocast it keeps its precision.
    """
    detector.eval().requires_grad_(False)
    for module in detector.modules():
        if isinstance(module, nn.RNNBase):
            keep_precision(module)
            module.dropout = 0.0
            module.train()
    return detector
