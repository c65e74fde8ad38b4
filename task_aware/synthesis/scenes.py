"""Composes clips: places events in time and in a room, adds a background, and labels them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from task_aware.data.labels import Event
from task_aware.data.levels import active_part
from task_aware.synthesis.rooms import Room, impulse_response
from task_aware.synthesis.signals import SAMPLE_RATE, Array, decibels, fast_length

CLIP_SECONDS = 10.0


def _in_room(dry: Array, response: Array) -> Array:
    """Convolves a placed sound `[N]` with a response, cuts it at N and restores the energy of the dry sound."""
    size = fast_length(len(dry) + len(response))
    wet = np.fft.irfft(np.fft.rfft(dry, size) * np.fft.rfft(response, size), size)[: len(dry)]
    return wet * np.sqrt(np.sum(dry**2) / (np.sum(wet**2) + 1e-20))


def compose(
    rng: np.random.Generator, events: Sequence[tuple[str, Array]], background: Array, room: Room | None
) -> tuple[Array, list[Event]]:
    """Composes a clip `[160000]` and its events, sorted by onset.

    The background has about -50 dBFS RMS. Each event is 2 to 25 dB louder (RMS over its active part): a clip's level
    is drawn from 9 to 18 dB above the background, and each event's within 7 dB of it, so that most are audible.
    Events are placed uniformly and lie inside the clip. In a room, each event has its own position. The labels span
    the active part (20 ms frames within 40 dB of the loudest) of the dry event.
    """
    n = round(CLIP_SECONDS * SAMPLE_RATE)
    start = int(rng.integers(0, len(background) - n + 1))
    floor = decibels(rng.uniform(-55.0, -46.0))
    clip = background[start : start + n] * floor
    middle = rng.uniform(9.0, 18.0)
    labels: list[Event] = []
    for label, signal in events:
        dry = np.zeros(n)
        signal = signal[:n]
        begin = int(rng.integers(0, n - len(signal) + 1))
        dry[begin : begin + len(signal)] = signal
        active = active_part(dry, SAMPLE_RATE)
        gain = floor * decibels(middle + rng.uniform(-7.0, 7.0)) / active.rms
        placed = dry if room is None else _in_room(dry, impulse_response(rng, room))
        clip = clip + gain * placed
        labels.append(Event(active.first / SAMPLE_RATE, active.last / SAMPLE_RATE, label))
    peak = float(np.abs(clip).max())
    return clip * min(1.0, 0.95 / peak), sorted(labels, key=lambda event: (event.onset, event.label))
