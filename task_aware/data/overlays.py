"""Pairs of labelled clips, overlaid."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from task_aware.data.audio import LARGEST
from task_aware.data.desed import Clip
from task_aware.data.labels import Event

SAMPLE_RATE = 16000


def union(events: Iterable[Event]) -> list[Event]:
    """The events in the order of their onsets; those of one class that overlap or touch are joined."""
    joined: list[Event] = []
    for event in sorted(events, key=lambda event: (event.label, event.onset)):
        if joined and joined[-1].label == event.label and event.onset <= joined[-1].offset:
            last = joined.pop()
            event = Event(last.onset, max(last.offset, event.offset), event.label)
        joined.append(event)
    return sorted(joined, key=lambda event: (event.onset, event.offset))


def overlay(first: Clip, second: Clip) -> tuple[np.ndarray, list[Event]]:
    """The sum of two strongly labelled clips, `[N]` as long as the longer one, and its events."""
    samples = [clip.read(SAMPLE_RATE) for clip in (first, second)]
    total = np.zeros(max(map(len, samples)), np.float32)
    for part in samples:
        total[: len(part)] += part
    total *= LARGEST / max(float(np.abs(total).max(initial=0.0)), LARGEST)
    return total, union([*(first.events or ()), *(second.events or ())])
