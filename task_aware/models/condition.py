"""What a detector found in a mixture, as an input of the mask network that separates it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from task_aware.models.crnn import CRNN
from task_aware.models.detector import Detection, Detector

#: Logits are clipped here before they condition the mask network.
CLIPPED_LOGIT = 6.0


def condition_size(detector: Detector) -> int:
    """Number of channels of `condition_of`."""
    size = len(detector.labels)
    if isinstance(detector, CRNN):
        size += detector.config.filters[-1] + detector.dense.in_features
    return size


def condition_of(detector: Detector, detection: Detection, n_frames: int) -> Tensor:
    """What a detector found in mixtures, as input of a mask network.

    A causal CRNN that looks ahead answers late; each frame is told its latest answer, so that nothing depends on the
    future, and 0 before the first.

    Args:
        detector: the detector.
        detection: its answer for B mixtures.
        n_frames: feature frames T of the mixtures.

    Returns:
        `[B, condition_size(detector), T]`: the clipped logits of the frame probabilities; of the CRNN also the outputs
        of its last convolution block and of its recurrent layer. Each output frame is repeated.
    """
    logits = torch.logit(detection.frame.float(), 1e-4).clamp(-CLIPPED_LOGIT, CLIPPED_LOGIT) / CLIPPED_LOGIT
    found = logits.transpose(1, 2)
    if isinstance(detector, CRNN):
        length = found.shape[-1]
        late = nn.functional.pad(found, (detector.lookahead, 0))[..., :length]
        convolution, recurrent = detection.activations[-2:]
        layers = (convolution.squeeze(2), recurrent.transpose(1, 2))
        found = torch.cat([late, *(layer[..., :length].float() for layer in layers)], 1)
    return at_frames(found, n_frames, detector)


def at_frames(found: Tensor, n_frames: int, detector: Detector) -> Tensor:
    """Repeats output frames, `[B, C, T']` -> `[B, C, T]`; zeros if there are none.

    Of the CRNN, each spans the frames that it pools, and the last one also the incomplete rest.
    """
    if not found.shape[-1]:
        return found.new_zeros(*found.shape[:-1], n_frames)
    if isinstance(detector, CRNN):
        whole = torch.cat([found, found[..., -1:]], -1)
        return whole.repeat_interleave(detector.time_pooling, -1)[..., :n_frames]
    return nn.functional.interpolate(found, size=n_frames, mode="nearest")
