"""Makes a sound of a class from a random generator: synthesises it, colours it like a microphone and trims it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from task_aware.data.levels import active_part
from task_aware.synthesis.liquids import frying, running_water
from task_aware.synthesis.machines import blender, electric_shaver_toothbrush, vacuum_cleaner
from task_aware.synthesis.signals import SAMPLE_RATE, Array, ramp, rough_curve, samples, shape
from task_aware.synthesis.struck import alarm_bell_ringing, dishes
from task_aware.synthesis.voices import cat, dog, speech

GENERATORS: dict[str, Callable[[np.random.Generator], Array]] = {
    "Alarm_bell_ringing": alarm_bell_ringing,
    "Blender": blender,
    "Cat": cat,
    "Dishes": dishes,
    "Dog": dog,
    "Electric_shaver_toothbrush": electric_shaver_toothbrush,
    "Frying": frying,
    "Running_water": running_water,
    "Speech": speech,
    "Vacuum_cleaner": vacuum_cleaner,
}
"""DESED's ten classes, sorted; each function makes a different sound from each state of the random generator."""


SHORTEST_SECONDS = 0.35
"""Shorter sounds are drawn again: a median filter of 0.45 s would remove even a perfect detection of them."""


def microphone(rng: np.random.Generator, signal: Array) -> Array:
    """Colours a signal `[n]` as a recording device would: tilt, loss of lows and highs, a few dB of colouration."""
    tilt = rng.uniform(-1.8, 1.8)
    flat = [(hertz, tilt * np.log2(hertz / 1000.0)) for hertz in (150.0, 450.0, 1000.0, 2200.0, 4500.0)]
    low, high = rng.uniform(-18.0, -3.0), rng.uniform(-12.0, 0.0)
    points = rough_curve(rng, flat, 2.0)
    ends = [(10.0, -60.0), (40.0, points[0][1] + low), *points, (7800.0, points[-1][1] + high)]
    return shape(signal, ends)


def sound(label: str, rng: np.random.Generator) -> Array:
    """Makes an isolated sound `[n]` of the class, trimmed to an active part of 0.35 to 10 s with RMS 1."""
    while True:
        signal = microphone(rng, GENERATORS[label](rng))
        active = active_part(signal, SAMPLE_RATE)
        if active.last - active.first >= samples(SHORTEST_SECONDS):
            break
    signal = signal[active.first : min(active.last, active.first + samples(10.0))]
    signal = signal * ramp(len(signal), 0.004, 0.01)
    return signal / active_part(signal, SAMPLE_RATE).rms
