"""Contents of the built-in corpus: which sounds make up which file, each from a random generator of its own.

A file depends on the version of the sounds, seed, part, class and index alone, so neither order nor threads change it.
Nothing here accesses the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from task_aware.data.labels import DESED_CLASSES, Event
from task_aware.synthesis.backgrounds import background
from task_aware.synthesis.rooms import Room, impulse_response, random_room
from task_aware.synthesis.scenes import compose
from task_aware.synthesis.signals import Array, decibels
from task_aware.synthesis.sizes import Size
from task_aware.synthesis.sounds import sound

VERSION = 6
"""Part of the folder's name; must be raised whenever the same seed gives other files."""

_SOUNDS = 5
"""Part of every random generator; must be raised whenever the same seed gives other sounds."""

# Keys of the random generators. A sound uses the index of its class as the second key; the others follow the classes.
_PARTS = ("soundbank", "weak", "unlabelled", "synthetic", "validation")
_BACKGROUND, _BACKGROUND_LEVEL, _ROOM, _RESPONSE, _CLIP, _PLAN = range(len(DESED_CLASSES), len(DESED_CLASSES) + 6)

_EVENT_COUNTS: dict[str, tuple[float, ...]] = {
    "weak": (0.3, 0.4, 0.3),
    "unlabelled": (0.3, 0.4, 0.3),
    "synthetic": (0.24, 0.38, 0.26, 0.12),
    "validation": (0.24, 0.38, 0.26, 0.12),
}
"""Shares of clips with 1, 2, ... events."""


@dataclass(frozen=True)
class ClipPlan:
    """A clip of a part of the corpus: for each of its events, the class and the number of the sound."""

    part: str
    index: int
    events: tuple[tuple[str, int], ...]


def _generator(seed: int, part: str, kind: int, index: int) -> np.random.Generator:
    return np.random.default_rng([_SOUNDS, seed, _PARTS.index(part), kind, index])


def plan_clips(seed: int, part: str, size: Size) -> list[ClipPlan]:
    """Plans the classes of all clips of a part: each about equally often, none twice in a clip.

    Synthetic clips use sounds from the soundbank; elsewhere every event is a new sound. In the strongly labelled
    parts one clip in forty, and at least one, has no events.
    """
    rng = _generator(seed, part, _PLAN, 0)
    clips: int = getattr(size, part)
    shares = _EVENT_COUNTS[part]
    empty = max(1, clips // 40) if part in ("synthetic", "validation") else 0
    # spread evenly over the shares instead of drawn from them, so that small splits have all kinds of clips too
    quantiles = (np.arange(clips - empty) + 0.5) / (clips - empty)
    counts = 1 + np.searchsorted(np.cumsum(shares), quantiles)
    counts = rng.permutation(np.append(counts, np.zeros(empty, dtype=np.int64))).tolist()
    deck: list[str] = []
    planned = []
    for index, count in enumerate(counts):
        chosen: list[str] = []
        while len(chosen) < count:
            if not set(deck) - set(chosen):
                deck.extend(rng.permutation(DESED_CLASSES).tolist())
            chosen.append(deck.pop(next(k for k, label in enumerate(deck) if label not in chosen)))
        numbers = rng.integers(size.events, size=count).tolist() if part == "synthetic" else [index] * count
        planned.append(ClipPlan(part, index, tuple(zip(chosen, numbers, strict=True))))
    return planned


def make_event(seed: int, part: str, label: str, number: int) -> Array:
    """Synthesises an isolated sound `[n]` of a part, with an active RMS of 1."""
    return sound(label, _generator(seed, part, DESED_CLASSES.index(label), number))


def make_soundbank_event(seed: int, label: str, index: int) -> Array:
    """Synthesises a sound as stored in the soundbank: active RMS of -15 to -30 dBFS, peak at most 0.9."""
    samples = make_event(seed, "soundbank", label, index)
    level = decibels(-15.0 - 15.0 * float(_generator(seed, "soundbank", _CLIP, index).uniform()))
    return samples * min(level, 0.9 / float(np.abs(samples).max()))


def make_background(seed: int, part: str, index: int) -> Array:
    """Synthesises an ambience of 12 s with RMS 1."""
    return background(_generator(seed, part, _BACKGROUND, index), 12.0)


def make_soundbank_background(seed: int, index: int) -> Array:
    """Synthesises an ambience as stored in the soundbank: -46 to -55 dBFS RMS."""
    level = decibels(float(_generator(seed, "soundbank", _BACKGROUND_LEVEL, index).uniform(-55.0, -46.0)))
    return level * make_background(seed, "soundbank", index)


@lru_cache(maxsize=64)
def make_room(seed: int, part: str, number: int) -> Room:
    """Draws a room of the soundbank (for training) or of validation."""
    return random_room(_generator(seed, part, _ROOM, number))


def make_response(seed: int, room: int, position: int, size: Size) -> Array:
    """Computes an impulse response of a training room."""
    rng = _generator(seed, "soundbank", _RESPONSE, room * size.positions + position)
    return impulse_response(rng, make_room(seed, "soundbank", room))


def make_clip(seed: int, clip: ClipPlan, size: Size) -> tuple[Array, list[Event]]:
    """Makes the samples `[160000]` and events of a clip; half of the clips are reverberant.

    Synthetic clips use the soundbank's sounds and backgrounds, the others their own. Validation has its own rooms.
    """
    rng = _generator(seed, clip.part, _CLIP, clip.index)
    source = "soundbank" if clip.part == "synthetic" else clip.part
    ambience = int(rng.integers(size.backgrounds)) if source == "soundbank" else clip.index
    number = int(rng.integers(size.rooms))
    room = make_room(seed, "validation" if clip.part == "validation" else "soundbank", number)
    events = [(label, make_event(seed, source, label, k)) for label, k in clip.events]
    return compose(rng, events, make_background(seed, source, ambience), room if rng.uniform() < 0.5 else None)
