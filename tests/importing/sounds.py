"""Clips that the tests import."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000


def barks(*onsets: float, seconds: float = 5.0, length: float = 0.4, noise: float = 1e-4, seed: int = 0) -> np.ndarray:
    """Bursts of noise at these times, over quiet noise (`noise` 0: digital silence)."""
    generator = np.random.default_rng(seed)
    samples = noise * generator.standard_normal(round(seconds * RATE))
    for onset in onsets:
        first, count = round(onset * RATE), round(length * RATE)
        samples[first : first + count] += 0.1 * generator.standard_normal(count)
    return samples.astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path


def clips(folder: Path, labels: tuple[str, ...], count: int) -> Path:
    """Class folders of clips with one bark each."""
    for number, label in enumerate(labels):
        for k in range(count):
            seed = 100 * number + k
            write(folder / label / f"{k}.wav", barks(0.3, seconds=1.0, seed=seed))
    return folder
