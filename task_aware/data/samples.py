"""Samples as a caller has them, of any type, as floats with full scale 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from task_aware.base.errors import RecordingError

#: Types of integer samples: what stands for silence, and how far full scale is from it. 64-bit integers are no audio
#: format; they come from lists and sums, of which nobody knows the full scale.
FULL_SCALE = {"int8": (0, 2**7), "uint8": (2**7, 2**7), "int16": (0, 2**15), "int32": (0, 2**31)}

#: Samples beyond 40 dB above full scale are no recording: integers that became floats, or a broken file.
LOUDEST = 100.0


def as_float(samples: np.ndarray | Tensor, name: str = "waveform") -> np.ndarray:
    """Samples of any shape as float32 with full scale 1: integers are divided by the full scale of their type.

    Raises ValueError, which names `name`, if they are not numbers, or integers of no audio format.
    """
    array = _as_array(samples)
    kind = array.dtype.kind
    if kind == "f":
        with np.errstate(over="ignore"):  # becomes infinite, which the caller refuses
            return array.astype(np.float32)
    if kind in "iu" and array.dtype.name in FULL_SCALE:
        silence, scale = FULL_SCALE[array.dtype.name]
        return ((array.astype(np.float64) - silence) / scale).astype(np.float32)
    given = array.dtype.name if array.ndim else type(samples).__name__
    raise ValueError(
        f"{name} is of type {given}; give an array of floats with full scale 1, or of {', '.join(FULL_SCALE)}"
    )


def check_level(samples: np.ndarray, name: str) -> None:
    """Raises RecordingError, which names `name`, if samples are not finite or far beyond full scale (1)."""
    peak = float(np.abs(samples).max(initial=0.0))
    if not np.isfinite(peak):
        raise RecordingError(f"{name} must be finite, got NaN or infinity")
    if peak > LOUDEST:
        raise RecordingError(
            f"{name} reaches {peak:.3g}, but full scale is 1; divide samples that were integers by the full scale of "
            "their type (16 bits: 32768)"
        )


def _as_array(samples: Any) -> np.ndarray:
    if isinstance(samples, Tensor):
        samples = samples.detach().cpu()
        return (samples.float() if samples.is_floating_point() else samples).numpy()  # numpy has no bfloat16
    try:
        return np.asarray(samples)
    except ValueError:  # rows of unequal length
        return np.asarray(None)
