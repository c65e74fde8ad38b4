"""What the precision of the networks costs on this processor."""

from __future__ import annotations

import logging

import torch

from task_aware.models.options import Precision

_log = logging.getLogger(__name__)


def computes_in_bfloat16() -> bool:
    """Whether PyTorch has fast products of bfloat16 on this processor; without, it converts each of their factors."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def warn_if_slow(precision: Precision, device: torch.device) -> None:
    """Warns where bfloat16 takes longer than float32."""
    if precision == "bf16-mixed" and device.type == "cpu" and not computes_in_bfloat16():
        _log.warning("this processor has no instructions for bfloat16: it takes several times as long as 32-true")
