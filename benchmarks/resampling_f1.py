"""`python benchmarks/resampling_f1.py DATA`: event F1 of clips that come back from 44.1 kHz by several resamplers."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import librosa
import numpy as np
import soundfile
import soxr
import torch
import torchaudio

from task_aware.data.audio import read_audio
from task_aware.data.desed import read_split
from task_aware.inference.predictor import Predictor
from task_aware.models.opening import BUILTIN_DETECTOR
from task_aware.scoring.metrics import event_counts
from task_aware.scoring.significance import bootstrap, interval, macro_f1

RATE, HIGH_RATE = 16000, 44100


def noise_like(samples: np.ndarray, seed: int) -> np.ndarray:
    """Noise above 8 kHz, as loud as the samples."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(len(samples)))
    spectrum[np.fft.rfftfreq(len(samples), 1 / HIGH_RATE) < RATE / 2] = 0
    noise = np.fft.irfft(spectrum, len(samples))
    return (noise * np.sqrt(np.square(samples).mean() / np.square(noise).mean())).astype(np.float32)


def came_back(samples: np.ndarray, folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Samples at 44.1 kHz, brought to 16 kHz in each way."""
    soundfile.write(folder / "x.wav", samples, HIGH_RATE, subtype="FLOAT")
    yield "soxr", read_audio(folder / "x.wav", RATE)
    yield "torchaudio", torchaudio.functional.resample(torch.from_numpy(samples), HIGH_RATE, RATE).numpy()
    yield "polyphase", librosa.resample(samples, orig_sr=HIGH_RATE, target_sr=RATE, res_type="polyphase")


def main() -> None:
    """Prints F1 in percent, its change against the clips as they are, and against soxr, with 95 % intervals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder in DESED's layout, with clips of 16 kHz")
    parser.add_argument("--clips", type=int, help="number of clips; default: all")
    options = parser.parse_args()
    predictor = Predictor(BUILTIN_DETECTOR)
    clips = read_split(options.data, "validation", predictor.labels).clips[: options.clips]
    found: dict[str, dict[str, list]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, clip in enumerate(clips):
            samples = read_audio(clip.path, RATE)
            high = soxr.resample(samples, RATE, HIGH_RATE, "VHQ").astype(np.float32)
            versions = {"as it is": samples}
            versions |= {f"plain, {name}": each for name, each in came_back(high, Path(folder))}
            noisy = high + noise_like(high, number)
            versions |= {f"noise, {name}": each for name, each in came_back(noisy, Path(folder))}
            for name, each in versions.items():
                found.setdefault(name, {})[clip.filename] = predictor.detect(each, RATE)
    reference = {clip.filename: clip.events or () for clip in clips}
    counts = {name: [event_counts(reference, events, predictor.labels)] for name, events in found.items()}
    draws = bootstrap(counts, resamples=2000)
    for name, (run,) in counts.items():
        text = f"{name:18} {100 * macro_f1(run.sum(0)):.1f}"
        for other in ("as it is", f"{name.partition(',')[0]}, soxr"):
            if other in draws and other != name:
                low, high = interval(100 * (draws[name] - draws[other]))
                text += f"   against {other}: {low:+.1f} to {high:+.1f}"
        print(text)


if __name__ == "__main__":
    main()
