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

    Args:
        detector: the detector.
        detection: its answer for B mixtures.
        n_frames: feature frames T of the mixtures.

    Returns:
        `[B, condition_size(detector), T]`: the clipped logits of the frame probabilities; of the CRNN also the outputs
        of its last convolution block and of its recurrent layer. Each output frame is repeated.
    """
    logits = torch.logit(detection.frame.float(), 1e-4).clamp(-CLIPPED_LOGIT, CLIPPED_LOGIT) / CLIPPED_LOGIT
    parts = [logits.transpose(1, 2)]
    if isinstance(detector, CRNN):
        convolution, recurrent = detection.activations[-2:]
        frames = parts[0].shape[-1]
        parts += [convolution.squeeze(2)[..., :frames].float(), recurrent[:, -frames:].transpose(1, 2).float()]
    return nn.functional.interpolate(torch.cat(parts, 1), size=n_frames, mode="nearest")
