"""Sound event labels: DESED's classes, events, and their encoding as arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from task_aware.base.errors import DataError

DESED_CLASSES: tuple[str, ...] = (
    "Alarm_bell_ringing",
    "Blender",
    "Cat",
    "Dishes",
    "Dog",
    "Electric_shaver_toothbrush",
    "Frying",
    "Running_water",
    "Speech",
    "Vacuum_cleaner",
)

# Times are decimal fractions, so rounding alone may keep onset / frame_seconds from being a whole number.
_FRAME_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Event:
    """One labelled sound event; `onset` and `offset` in seconds from the start of its clip."""

    onset: float
    offset: float
    label: str


def written_times(event: Event) -> tuple[str, str]:
    """Onset and offset as tables have them, in seconds with three decimals; rounding leaves an event at least 1 ms."""
    onset, offset = f"{event.onset:.3f}", f"{event.offset:.3f}"
    return onset, offset if float(offset) > float(onset) else f"{float(onset) + 0.001:.3f}"


#: The events of each file by filename; the sequence of a file without events is empty.
Events = Mapping[str, Sequence[Event]]


class LabelEncoder:
    """Encodes labels as arrays with one column per class.

    Args:
        labels: the C class names, in the order of the columns.

    Raises:
        ValueError: there are no labels, or one occurs twice.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        if isinstance(labels, str) or not labels:
            raise ValueError(f"labels must be a non-empty sequence of class names, got {labels!r}.")
        self.labels: tuple[str, ...] = tuple(labels)
        self._index = {label: column for column, label in enumerate(self.labels)}
        if len(self._index) != len(self.labels):
            repeated = sorted({label for label in self.labels if self.labels.count(label) > 1})
            raise ValueError(f"labels must be unique, got {', '.join(repeated)} more than once.")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"LabelEncoder({list(self.labels)!r})"

    def index(self, label: str) -> int:
        """Column of `label`. Raises DataError if the label is unknown."""
        try:
            return self._index[label]
        except KeyError:
            raise DataError(f"Unknown label {label!r}; expected one of {', '.join(self.labels)}.") from None

    def weak(self, names: Iterable[str]) -> np.ndarray:
        """Clip-level target: float32 [C], 1 for each class in `names`."""
        target = np.zeros(len(self), dtype=np.float32)
        for name in names:
            target[self.index(name)] = 1.0
        return target

    def strong(self, events: Iterable[Event], n_frames: int, frame_seconds: float) -> np.ndarray:
        """Frame-level target: float32 [T', C].

        A frame is active if an event overlaps it: from floor(onset / frame_seconds) up to, but not including,
        ceil(offset / frame_seconds). Frames from `n_frames` on are cut.
        """
        if n_frames < 0 or not frame_seconds > 0:
            raise ValueError(
                f"n_frames must be at least 0 and frame_seconds must be above 0, got {n_frames} and {frame_seconds}."
            )
        target = np.zeros((n_frames, len(self)), dtype=np.float32)
        for event in events:
            first = math.floor(event.onset / frame_seconds + _FRAME_TOLERANCE)
            last = math.ceil(event.offset / frame_seconds - _FRAME_TOLERANCE)
            target[max(first, 0) : max(last, 0), self.index(event.label)] = 1.0
        return target
