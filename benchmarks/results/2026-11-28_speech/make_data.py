"""`make_data.py MINIDESED FSDD OUT`: speech of free collections and built-in household sounds, and mixtures of them.

OUT/train, OUT/dev and OUT/test are in the layout of DESED; they share no speaker, sound or room. OUT/mixtures/dev and
OUT/mixtures/test are ten-second mixtures of the last two at -5 dB; OUT/train has 60 of those of dev for validation.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr

from task_aware import ops
from task_aware.data.corpus import Corpus
from task_aware.data.labels import DESED_CLASSES
from task_aware.data.mixing_config import MixingConfig
from task_aware.synthesis.contents import make_background, make_event, make_response
from task_aware.synthesis.sizes import SIZES

RATE = 16000
NOISES = [label for label in DESED_CLASSES if label != "Speech"]
SPEAKERS = {"train": ["george", "lucas", "nicolas"], "dev": ["theo"], "test": ["jackson", "yweweler"]}
NUMBERS = {"train": (0, 51), "dev": (57, 60), "test": (61, 999)}  # recordings of noise-of-life
SEEDS = {"train": 0, "dev": 8, "test": 7}
COUNTS = {"train": (400, 300), "dev": (60, 60), "test": (200, 120)}  # utterances of digits, tracks of noise


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2) + 1e-12))


def digits(rng: np.random.Generator, files: list[Path], speed: float) -> np.ndarray:
    """Three to seven spoken digits with pauses of 50 to 200 ms."""
    parts = []
    for file in rng.choice(files, size=rng.integers(3, 8)):
        samples, rate = soundfile.read(file, dtype="float32")
        samples = soxr.resample(samples, rate / speed, RATE)
        parts += [samples / rms(samples), np.zeros(rng.integers(800, 3200), np.float32)]
    return np.concatenate(parts[:-1])


def write_speech(minidesed: Path, fsdd: Path, root: Path, part: str) -> None:
    rng = np.random.default_rng([SEEDS[part], 1])
    folder = root / "audio/train/soundbank/foreground/Speech"
    folder.mkdir(parents=True)
    low, high = NUMBERS[part]
    for file in sorted((minidesed / "audio/train/soundbank/foreground/Speech").iterdir()):
        number = re.match(r"noise-of-life_speech-(\d+)", file.name)
        if not (low <= int(number[1]) <= high if number else part == "test"):
            continue
        samples, rate = soundfile.read(file, dtype="float32")
        for index, speed in enumerate((1.0, 0.87, 1.15) if part == "train" else (1.0,)):
            heard = soxr.resample(samples, rate / speed, RATE) if speed != 1 else samples
            levelled = 0.1 * heard / rms(heard)
            if np.abs(levelled).max() >= 1:
                levelled = 0.9 * heard / np.abs(heard).max()
            soundfile.write(folder / f"{file.stem}_{index}.flac", levelled, RATE)
    for index in range(COUNTS[part][0]):
        name = SPEAKERS[part][index % len(SPEAKERS[part])]
        speed = rng.uniform(0.85, 1.2) if part == "train" else 1.0
        samples = digits(rng, sorted((fsdd / "recordings").glob(f"*_{name}_*.wav")), speed)
        samples *= 0.08 / rms(samples)
        soundfile.write(folder / f"{name}_{index:03d}.flac", samples / max(1, np.abs(samples).max() / 0.95), RATE)


def write_noise(root: Path, part: str) -> None:
    """Tracks of 11 s: one to three kinds of household sounds, again and again, over an ambience 20 dB below."""
    rng = np.random.default_rng([SEEDS[part], 2])
    folder = root / "audio/train/soundbank/background/household"
    folder.mkdir(parents=True)
    source = "soundbank" if part == "train" else "validation"
    length = RATE * 11
    for index in range(COUNTS[part][1]):
        track = np.resize(0.1 * make_background(SEEDS[part], source, index)[:length], length).astype(np.float32)
        for label in rng.choice(NOISES, size=rng.integers(1, 4), replace=False):
            level = 10 ** (rng.uniform(-8, 0) / 20)
            start = int(rng.integers(0, 8000))
            while start < length:
                event = make_event(SEEDS[part], source, label, int(rng.integers(200)))
                event = event[: length - start].astype(np.float32)
                track[start : start + len(event)] += level * event
                start += len(event) + int(rng.integers(0, 16000))
        soundfile.write(folder / f"noise_{index:03d}.flac", 0.9 * track / np.abs(track).max(), RATE)


def write_rooms(root: Path, part: str) -> None:
    (root / "rirs").mkdir()
    rows = [("filename", "room", "seconds", "t20")]
    for room in range(8):
        for position in range(3):
            response = make_response(SEEDS[part], room, position, SIZES["full"])
            name = f"room_{room}_position_{position}.flac"
            soundfile.write(root / "rirs" / name, response, RATE)
            rows.append((name, f"room_{room}", f"{len(response) / RATE:.3f}", "0.30"))
    write_rows(root / "rirs/rirs.tsv", rows)


def write_rows(path: Path, rows: list[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)


def write_mixtures(part: Path, out: Path, count: int, snr: float = -5.0) -> None:
    """Mixtures of one or two utterances each, as validation clips of `out`; the speech alone in `out`/clean.npz."""
    config = MixingConfig(
        n_events=(1, 2),
        distinct_classes=False,
        foreground_db=(0, 0),
        background_db=(-snr, -snr),
        gain_db=(-6, 6),
        reference_db=-32.0,
    )
    mixer = Corpus(part, labels=("Speech",)).mixer(config, n_sources=2, seconds=10.0, seed=5)
    (out / "audio/validation").mkdir(parents=True)
    rows, clean = [("filename", "onset", "offset", "event_label")], {}
    for index in range(count):
        plan = mixer.plan(index)
        mixed = ops.reverb_mix(*mixer.pack([plan]).unpack())
        name = f"mix_{index:03d}.flac"
        soundfile.write(out / "audio/validation" / name, mixed.mixture[0].numpy().clip(-1, 1), RATE)
        clean[name] = mixed.images[0].sum(0).numpy().astype(np.float16)
        rows += [(name, f"{event.onset:.3f}", f"{event.offset:.3f}", event.label) for event in plan.events]
    np.savez(out / "clean.npz", **clean)
    write_rows(out / "metadata/validation/validation.tsv", rows)


if __name__ == "__main__":
    minidesed, fsdd, out = map(Path, sys.argv[1:])
    for part in SEEDS:
        write_speech(minidesed, fsdd, out / part, part)
        write_noise(out / part, part)
        write_rooms(out / part, part)
    write_mixtures(out / "dev", out / "train", 60)
    write_mixtures(out / "dev", out / "mixtures/dev", 120)
    write_mixtures(out / "test", out / "mixtures/test", 300)
