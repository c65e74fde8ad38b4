"""Waveforms as callers have them, of any type, shape and rate, as a detector hears them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from task_aware.data.audio import resample
from task_aware.data.channels import Mixdown
from task_aware.data.offset import remove_offset
from task_aware.data.samples import as_float, check_level


def heard_samples(waveform: np.ndarray | Tensor, rate: int, wanted: int, channel: int | None) -> np.ndarray:
    """A recording `[N]` or `[channels, N]` as a detector hears it, `[N]`: one channel, at its rate, without an offset.

    Args:
        waveform: the samples; floats have full scale 1.
        rate: their sample rate, Hz.
        wanted: that of the detector.
        channel: the channel to take; None takes the mean.

    Raises ValueError if the recording is something else, not finite, or more than 40 dB above full scale.
    """
    samples = as_float(waveform)
    if samples.ndim not in (1, 2) or not samples.size:
        raise ValueError(f"waveform has the shape {list(samples.shape)}; expected [N] or [channels, N], not empty")
    if samples.ndim == 2 and samples.shape[0] > samples.shape[1]:
        raise ValueError(
            f"waveform has the shape {list(samples.shape)}, which looks like [N, channels]; transpose it to "
            "[channels, N] (waveform.T)"
        )
    check_level(samples, "waveform")
    mixdown = Mixdown("waveform", len(samples) if samples.ndim == 2 else 1, channel)
    mono = mixdown(samples.T if samples.ndim == 2 else samples[:, None])
    mixdown.check()
    return remove_offset(at_rate(mono, _checked(rate), wanted), wanted)


def at_rate(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Resamples `[..., N]` if the rates differ."""
    return samples if rate == wanted else resample(Path("the waveform"), samples, rate, wanted)


def _checked(rate: Any) -> int:
    """A sample rate as a whole number of Hz."""
    try:
        if rate == int(rate) > 0:
            return int(rate)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"sample_rate is {rate!r}; give a whole number of Hz, such as 16000")
