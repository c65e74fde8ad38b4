"""Soundscapes for listening and for fixed data sets: mixtures with their parts and labels, written as files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from task_aware import ops
from task_aware.data.audio import LARGEST, write_audio
from task_aware.data.labels import Event, safe_name
from task_aware.data.mixing import DynamicMixer

SAMPLE_RATE = 16000


#: Number of soundscapes that are mixed at a time.
BATCH = 4


class Soundscape(NamedTuple):
    """A mixture [N], rounded to 16 bit with full scale at 1, and its events.

    Attributes:
        parts: the signals that sum exactly to the mixture, by their names in files: the image of each class
            (`safe_name`; of a second source of the class with `_2`), and `background`.
        gain: factor applied to all signals to stay within full scale; 1 if none was needed.
    """

    mixture: np.ndarray
    parts: dict[str, np.ndarray]
    events: tuple[Event, ...]
    gain: float


@torch.no_grad()
def soundscapes(mixer: DynamicMixer, count: int, labels: Sequence[str]) -> Iterator[Soundscape]:
    """Yields the first `count` mixtures of a mixer."""
    for first in range(0, count, BATCH):
        plans = [mixer.plan(index) for index in range(first, min(first + BATCH, count))]
        dry = mixer.pack(plans).unpack()
        mixed = ops.reverb_mix(*dry)
        for b, plan in enumerate(plans):
            rows = _names([safe_name(labels[label]) for label in plan.labels if label >= 0])
            parts = dict(zip([*rows, "background"], [*mixed.images[b, : len(rows)], dry.background[b]], strict=True))
            peak = max(float(part.abs().max()) for part in (mixed.mixture[b], *parts.values()))
            gain = LARGEST / max(peak, LARGEST)
            rounded = {name: np.rint(gain * 32768 * part.numpy()) / 32768 for name, part in parts.items()}
            yield Soundscape(sum(rounded.values(), np.zeros(1)), rounded, plan.events, gain)


def _names(rows: Sequence[str]) -> list[str]:
    """The names of rows, numbered from the second of a name on; none is that of another."""
    found: list[str] = []
    for name in rows:
        number, unique = 1, name
        while unique in found or (number > 1 and unique in rows):
            number += 1
            unique = f"{name}_{number}"
        found.append(unique)
    return found


def write_soundscape(folder: Path, name: str, soundscape: Soundscape) -> None:
    """Writes the mixture to `folder/soundscapes/NAME.wav` and its parts to `folder/images/NAME/`."""
    for part, samples in soundscape.parts.items():
        write_audio(folder / "images" / name / f"{part}.wav", samples, SAMPLE_RATE)
    write_audio(folder / "soundscapes" / f"{name}.wav", soundscape.mixture, SAMPLE_RATE)


def own_files(labels: Sequence[str]) -> re.Pattern[str]:
    """The names of what `write_soundscape` writes, and of pictures, below `soundscapes` or `images`; also cut off."""
    parts = "|".join(map(re.escape, [*map(safe_name, labels), "background"]))
    return re.compile(rf"\.?\d{{5,}}\.wav(\.\d+\.tmp)?|\d{{5,}}/\.?(({parts})(_\d+)?\.wav|mixture\.png)(\.\d+\.tmp)?")
