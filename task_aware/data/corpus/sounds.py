"""One sound of a class from a random generator: the class's synthesis, then a microphone's colour and a tidy cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from task_aware.data.corpus.liquids import frying, running_water
from task_aware.data.corpus.machines import blender, electric_shaver_toothbrush, vacuum_cleaner
from task_aware.data.corpus.struck import alarm_bell_ringing, dishes
from task_aware.data.corpus.synthesis import Array, active_rms, active_span, ramp, rough_curve, samples, shape
from task_aware.data.corpus.voices import cat, dog, speech

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
"""DESED's ten classes, sorted; each function makes another individual of the class from each generator state."""


def microphone(rng: np.random.Generator, signal: Array) -> Array:
    """The signal `[n]` as another device would record it: tilt, loss of lows and highs, a few dB of colour."""
    tilt = rng.uniform(-1.8, 1.8)
    flat = [(hertz, tilt * np.log2(hertz / 1000.0)) for hertz in (150.0, 450.0, 1000.0, 2200.0, 4500.0)]
    low, high = rng.uniform(-18.0, -3.0), rng.uniform(-12.0, 0.0)
    points = rough_curve(rng, flat, 2.0)
    ends = [(40.0, points[0][1] + low), *points, (7800.0, points[-1][1] + high)]
    return shape(signal, ends)


def sound(label: str, rng: np.random.Generator) -> Array:
    """An isolated sound of the class `[n]`, 0.1 to 10 s, cut to its active part, RMS 1 over the active 20 ms frames."""
    signal = microphone(rng, GENERATORS[label](rng))
    first, last = active_span(signal)
    signal = signal[first : min(last, first + samples(10.0))]
    signal = signal * ramp(len(signal), 0.004, 0.01)
    return signal / active_rms(signal)
