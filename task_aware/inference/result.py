"""What a predictor finds in a recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from task_aware.data.labels import Event

#: What is left of a recording without the sources of classes.
REST = "rest"


@dataclass(frozen=True)
class Result:
    """Detections in a recording.

    Attributes:
        events: the detected events, sorted by onset.
        scores: frame probabilities, float32 `[T', C]`.
        seconds: length of the recording.
        alone: of a separator, the events that its detector finds without separation.
    """

    events: list[Event]
    scores: np.ndarray
    seconds: float
    alone: list[Event] | None = None

    def kept_sources(self, names: Sequence[str]) -> Sequence[str]:
        """Which of the sources are worth keeping: all free ones; of classes, those that were heard, and the rest."""
        if REST not in names:
            return names
        return [*{event.label: None for event in self.events}, REST]
