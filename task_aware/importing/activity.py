"""Where a clip sounds: silence at its ends and within is found by energy, so that each event has times of its own.

A frame of 20 ms is active if its level, averaged with its neighbours', is above a threshold between those of the
quietest 200 ms and of the loudest frame: a quarter of the way up, but at least 6 dB above the quietest and at most 40
dB below the loudest. A clip whose level varies by less than 12 dB is active as a whole, except for digital silence.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from task_aware.data.levels import ACTIVE_FRAME_SECONDS, ACTIVE_RANGE_DB, Frames
from task_aware.importing.options import GAP_SECONDS

#: What is shorter is a click.
SHORTEST_SECONDS = 0.06
#: Silence at the ends up to this long is not worth cutting.
WORTH_SECONDS = 0.1

_STEADY_DB, _LEAST_DB, _SHARE = 12.0, 6.0, 0.25
_QUIET_FRAMES, _SMOOTH_FRAMES = 10, 3


class Stretch(NamedTuple):
    """A stretch of a clip in seconds; `reason` says why it was cut, and is empty if it was kept."""

    onset: float
    offset: float
    reason: str = ""


def active_stretches(samples: np.ndarray, sample_rate: int, gap: float = GAP_SECONDS) -> list[Stretch]:
    """Cuts a clip `[N]` into stretches that sound (without a reason) and those that were cut, in order, to its end."""
    seconds = len(samples) / sample_rate
    active = _active_frames(Frames.of(samples, sample_rate))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8))).reshape(-1, 2)
    spans = [(first * ACTIVE_FRAME_SECONDS, last * ACTIVE_FRAME_SECONDS) for first, last in edges.tolist()]
    joined: list[tuple[float, float]] = []
    for onset, offset in spans:
        if joined and onset - joined[-1][1] <= gap:
            onset = joined.pop()[0]
        joined.append((onset, min(offset, seconds)))
    if joined and joined[0][0] < WORTH_SECONDS:
        joined[0] = (0.0, joined[0][1])
    if joined and seconds - joined[-1][1] < WORTH_SECONDS:
        joined[-1] = (joined[-1][0], seconds)
    longest = max((offset - onset for onset, offset in joined), default=0.0)
    found: list[Stretch] = []
    at = 0.0
    for onset, offset in joined:
        if onset > at:
            found.append(Stretch(at, onset, "silence at the beginning" if not at else "silence between events"))
        short = offset - onset < min(SHORTEST_SECONDS, longest)
        found.append(Stretch(onset, offset, "shorter than an event" if short else ""))
        at = offset
    if at < seconds:
        found.append(Stretch(at, seconds, "silence at the end" if at else "silence"))
    return found


def _active_frames(frames: Frames) -> np.ndarray:
    power = frames.energies / frames.length
    power[-1] *= frames.length / (frames.n_samples - (len(power) - 1) * frames.length)
    sounding = power[power > 0]
    if not len(sounding):
        return np.zeros(len(power), dtype=bool)
    quiet = _decibels(_mean(sounding, min(_QUIET_FRAMES, len(sounding)), "valid").min())
    level = _decibels(_mean(power, min(_SMOOTH_FRAMES, len(power)), "same"))
    loudest = level.max()
    if loudest - quiet < _STEADY_DB:
        return power > 0
    return level >= max(loudest - ACTIVE_RANGE_DB, quiet + max(_LEAST_DB, _SHARE * (loudest - quiet)))


def _mean(power: np.ndarray, length: int, mode: str) -> np.ndarray:
    return np.convolve(power, np.full(length, 1 / length), mode)  # type: ignore[call-overload]


def _decibels(power: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.maximum(power, 1e-20))
