"""The ranges of the training commands' options, checked before anything is computed."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from typing import NamedTuple

from task_aware.base.limits import MAX_SOURCES


class Range(NamedTuple):
    """Finite numbers from `low` to `high`, both included, unless `open_` leaves out `low`."""

    low: float
    high: float = math.inf
    open_: bool = False

    def __contains__(self, value: object) -> bool:
        assert isinstance(value, (int, float))
        return math.isfinite(value) and (self.low < value if self.open_ else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        if math.isinf(self.low):
            return "a finite number"
        low = f"{'a number above' if self.open_ else 'at least'} {self.low:g}"
        return low if math.isinf(self.high) else f"{low} and at most {self.high:g}"


_NOT_NEGATIVE, _AT_LEAST_ONE, _SHARE, _ABOVE_ZERO = Range(0), Range(1), Range(0, 1), Range(0, open_=True)
_CLIPS = Range(0, 4096)  # per step and process; `losses` has weights of these names, far below
_SECONDS = Range(0.1, 3600)

#: Ranges by the last part of an option's name. An option that is not here checks itself.
RANGES = {
    "seed": Range(0, 2**31 - 1),
    "channel": _NOT_NEGATIVE,
    "devices": _AT_LEAST_ONE,
    "workers": _NOT_NEGATIVE,
    "strong": _CLIPS,
    "weak": _CLIPS,
    "unlabelled": _CLIPS,
    "mixtures": Range(1, 4096),
    "separation_strong": Range(1, 4096),
    "strong_seconds": _SECONDS,
    "real_seconds": _SECONDS,
    "seconds": _SECONDS,
    "max_steps": _AT_LEAST_ONE,
    "steps_per_epoch": _AT_LEAST_ONE,
    "learning_rate": _ABOVE_ZERO,
    "task_learning_rate": _ABOVE_ZERO,
    "warmup_steps": _NOT_NEGATIVE,
    "separation_share": _SHARE,
    "anchor_share": _SHARE,
    "gradient_clip": _NOT_NEGATIVE,
    "ema_decay": _SHARE,
    "n_sources": Range(1, MAX_SOURCES),
    "slots_per_class": Range(1, MAX_SOURCES),
    "mse": _NOT_NEGATIVE,
    "deep_feature": _NOT_NEGATIVE,
    "teacher": _NOT_NEGATIVE,
    "frame": _NOT_NEGATIVE,
    "own": _NOT_NEGATIVE,
    "mask_floor": Range(0, 0.99),
    "consistency": _NOT_NEGATIVE,
    "teacher_noise_db": Range(-math.inf),
    "rnn_cells": _AT_LEAST_ONE,
    "rnn_layers": _AT_LEAST_ONE,
    "dropout": Range(0, 0.99),
    "batch_norm_momentum": _SHARE,
    "amin": _ABOVE_ZERO,
}


def check_ranges(config: object, name: str = "") -> None:
    """Raises ValueError, naming the option, if a number in `config` or below it is out of its range."""
    assert is_dataclass(config)
    for field in fields(config):
        option, value = f"{name}{field.name}", getattr(config, field.name)
        wanted = RANGES.get(field.name)
        if is_dataclass(value):
            check_ranges(value, f"{option}.")
        elif wanted is not None and isinstance(value, (int, float)) and value not in wanted:
            finite = "" if math.isfinite(value) or math.isinf(wanted.low) else ", and a finite number"
            raise ValueError(f"--{option} is {value}; give {wanted}{finite}")
