"""What a predictor finds in a recording, and which of its sources are worth keeping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
        kept: the sources worth keeping, by name: all free ones; of classes, those that were heard, and the rest.
        heard: of sources of classes, where they were separated: the largest probability of the class in each, by name.
    """

    events: list[Event]
    scores: np.ndarray
    seconds: float
    alone: list[Event] | None = None
    kept: tuple[str, ...] = ()
    heard: Mapping[str, float] = field(default_factory=dict)


def kept_sources(
    events: list[Event], sources: Mapping[str, str], heard: Mapping[str, float], threshold: float
) -> tuple[str, ...]:
    """Which of the sources are worth keeping, as `Result.kept` has them.

    Of a class that was detected, these are the source in which it is most probable, and others in which its probability
    reaches the threshold: what a class has more sources for than sounds is a faint copy, or nothing.

    Args:
        events: what was detected.
        sources: the class of each source by its name; of free sources and of the rest, their name.
        heard: as in `Result`; empty keeps all of a class.
        threshold: probability from which on a class is active.
    """
    if REST not in sources:
        return tuple(sources)
    kept: list[str] = []
    for label in dict.fromkeys(event.label for event in events):
        names = [name for name, own in sources.items() if own == label]
        if heard:
            best = max(names, key=heard.__getitem__)
            names = [name for name in names if name == best or heard[name] >= threshold]
        kept += names
    return (*kept, REST)
