"""Recordings and tables that the tests write."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000


def burst(seconds: float, *, lead: float = 0.0, tail: float = 0.0, level: float = 0.1, seed: int = 0) -> np.ndarray:
    """Noise of the RMS `level` between stretches of silence."""
    generator = np.random.default_rng(seed)
    noise = level * generator.uniform(-1.7, 1.7, round(seconds * RATE))
    return np.concatenate([np.zeros(round(lead * RATE)), noise, np.zeros(round(tail * RATE))]).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)
    return path


def write_table(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path
