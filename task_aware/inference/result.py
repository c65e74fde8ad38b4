"""What a predictor finds in a recording, and which of its sources are worth keeping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from task_aware.data.labels import Event

#: What is left of a recording without the sources of classes.
REST = "rest"

#: A source of a class is heard if it is no further below the loudest source of that class.
HEARD_DB = 20.0


@dataclass(frozen=True)
class Result:
    """Detections in a recording.

    Attributes:
        events: the detected events, sorted by onset.
        scores: frame probabilities, float32 `[T', C]`.
        seconds: length of the recording.
        alone: of a separator, the events that its detector finds without separation.
        kept: the sources worth keeping, by name: all free ones; of classes, those that were heard, and the rest.
    """

    events: list[Event]
    scores: np.ndarray
    seconds: float
    alone: list[Event] | None = None
    kept: tuple[str, ...] = ()


def heard_sources(events: list[Event], sources: Mapping[str, str], energies: np.ndarray | None) -> tuple[str, ...]:
    """Which of the sources are worth keeping, as `Result.kept` has them.

    Args:
        events: what was detected.
        sources: the class of each source by its name; of free sources and of the rest, their name.
        energies: of the sources, `[S]`, in which classes with several sources are compared; None keeps all of a class.
    """
    if REST not in sources:
        return tuple(sources)
    kept: list[str] = []
    for heard in dict.fromkeys(event.label for event in events):
        loud = {
            name: 1.0 if energies is None else float(energies[number])
            for number, (name, label) in enumerate(sources.items())
            if label == heard
        }
        kept += [name for name, energy in loud.items() if energy >= max(loud.values()) * 10 ** (-HEARD_DB / 10)]
    return (*kept, REST)
