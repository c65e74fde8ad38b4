"""Making the corpus: what files it holds, each from generator states of its own, written in DESED's layout.

Every file depends on (version, seed, part, class, index) alone, so neither the order nor the number of threads
changes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from task_aware.data.audio import write_audio
from task_aware.data.corpus.backgrounds import background
from task_aware.data.corpus.rooms import LENGTH, Room, impulse_response, random_room, reverberation_time
from task_aware.data.corpus.scenes import CLIP_SECONDS, compose
from task_aware.data.corpus.sounds import GENERATORS, sound
from task_aware.data.corpus.synthesis import SAMPLE_RATE, Array, decibels
from task_aware.data.labels import DESED_CLASSES, Event

VERSION = 1
"""Part of the folder's name; raise it whenever the same seed gives other samples."""

_PARTS = {"soundbank": 0, "rirs": 1, "weak": 2, "unlabelled": 3, "synthetic": 4, "validation": 5, "plan": 6}
_ANY_CLASS = len(DESED_CLASSES)


@dataclass(frozen=True)
class Size:
    """How many files of each kind: events per class, backgrounds, clips of each split, rooms and positions in each."""

    events: int
    backgrounds: int
    weak: int
    unlabelled: int
    synthetic: int
    validation: int
    rooms: int
    positions: int


SIZES = {
    "full": Size(24, 24, 100, 100, 60, 120, 8, 6),
    "tiny": Size(3, 3, 6, 6, 6, 8, 2, 3),
}

_README = """\
A corpus of domestic sound events made by task_aware from seed {seed} (version {version}, size "{size}").

Every sound is synthesised: no recording is in it, so it is free of anyone's rights. It has DESED's layout and ten
classes, and exists to exercise training, separation and scoring without a download. Scores on it say nothing about
recordings.

audio/train/soundbank/foreground/<Class>   isolated events; background/ambient: backgrounds of 12 s
audio/train/weak, unlabel_in_domain        clips of 10 s with labels per clip, or none
audio/train/synthetic20/soundscapes        clips mixed from the soundbank, labels with onset and offset
audio/validation                           clips with onset and offset, from sounds and rooms of their own
metadata                                   the labels, tab-separated
rirs, rirs/rirs.tsv                        room impulse responses of the training rooms

Events lie 0 to 25 dB above a background of about -50 dBFS RMS; half of the clips are reverberant. A label spans the
20 ms frames within 40 dB of the event's loudest one, before reverberation.
"""


def _generator(seed: int, part: str, label: int, index: int) -> np.random.Generator:
    return np.random.default_rng([VERSION, seed, _PARTS[part], label, index])


@dataclass(frozen=True)
class _Clip:
    """What a clip is made of: the part whose sounds it takes and, for each event, class and number within the part."""

    part: str
    index: int
    events: tuple[tuple[str, int], ...]


def _plan(seed: int, part: str, clips: int, most: int, pool: int | None) -> list[_Clip]:
    """Classes of every clip of a part, each class about equally often, none twice in a clip.

    pool: how many sounds of each class there are to choose from; None where every event is a sound of its own.
    One clip in forty, and at least one, of validation and of the synthetic part has no event at all.
    """
    rng = _generator(seed, "plan", _PARTS[part], 0)
    silent = max(1, clips // 40) if part in ("validation", "synthetic") else 0
    silent_clips = set(rng.permutation(clips)[:silent].tolist())
    deck: list[str] = []
    planned = []
    for index in range(clips):
        count = 0 if index in silent_clips else int(rng.choice(np.arange(1, most + 1), p=_EVENT_COUNTS[most]))
        chosen: list[str] = []
        while len(chosen) < count:
            if not set(deck) - set(chosen):
                deck.extend(rng.permutation(DESED_CLASSES).tolist())
            chosen.append(deck.pop(next(k for k, label in enumerate(deck) if label not in chosen)))
        numbers = [index if pool is None else int(rng.integers(pool)) for _ in chosen]
        planned.append(_Clip(part, index, tuple(zip(chosen, numbers, strict=True))))
    return planned


_EVENT_COUNTS = {3: (0.3, 0.4, 0.3), 4: (0.18, 0.34, 0.3, 0.18)}
"""Shares of clips with 1, 2, ... events, by the largest number."""


@lru_cache(maxsize=64)
def _room(seed: int, part: str, number: int) -> Room:
    return random_room(_generator(seed, part, _ANY_CLASS, 1_000_000 + number))


def _make_clip(seed: int, clip: _Clip, size: Size) -> tuple[Array, list[Event]]:
    """The samples and events of a clip. Synthetic clips take the soundbank's sounds, backgrounds and rooms."""
    rng = _generator(seed, clip.part, _ANY_CLASS, clip.index)
    source = "soundbank" if clip.part == "synthetic" else clip.part
    ambience = int(rng.integers(size.backgrounds)) if source == "soundbank" else clip.index
    rooms = "validation" if clip.part == "validation" else "rirs"
    room = _room(seed, rooms, int(rng.integers(size.rooms))) if rng.uniform() < 0.5 else None
    events = [
        (label, sound(label, _generator(seed, source, DESED_CLASSES.index(label), number)))
        for label, number in clip.events
    ]
    return compose(rng, events, _background(seed, source, ambience), room)


def _background(seed: int, part: str, index: int) -> Array:
    return background(_generator(seed, part, _ANY_CLASS, 2_000_000 + index), 12.0)


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(row) for row in [header, *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _strong_rows(name: str, events: Sequence[Event]) -> list[list[str]]:
    if not events:
        return [[name, "", "", ""]]
    return [[name, f"{event.onset:.3f}", f"{event.offset:.3f}", event.label] for event in events]


def build(root: Path, *, seed: int, size: str, progress: bool) -> None:
    """Write the corpus into the empty folder `root`; the manifest comes last.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    counts = SIZES[size]
    jobs: list[Callable[[], object]] = []
    rows: dict[str, dict[int, list[list[str]]]] = {
        name: {} for name in ("weak", "synthetic", "validation", "rirs")
    }

    def event_job(label: str, index: int) -> None:
        rng = _generator(seed, "soundbank", DESED_CLASSES.index(label), index)
        samples = sound(label, rng)
        samples *= min(decibels(rng.uniform(-30.0, -15.0)), 0.9 / np.abs(samples).max())
        folder = root / "audio/train/soundbank/foreground" / label
        write_audio(folder / f"{label.lower()}_{index:03d}.flac", samples, SAMPLE_RATE)

    def background_job(index: int) -> None:
        level = decibels(_generator(seed, "soundbank", _ANY_CLASS, 3_000_000 + index).uniform(-55.0, -46.0))
        folder = root / "audio/train/soundbank/background/ambient"
        write_audio(
            folder / f"ambient_{index:03d}.flac", level * _background(seed, "soundbank", index), SAMPLE_RATE
        )

    def response_job(room: int, position: int) -> None:
        number = room * counts.positions + position
        response = impulse_response(_generator(seed, "rirs", _ANY_CLASS, number), _room(seed, "rirs", room))
        name = f"room_{room}_position_{position}.flac"
        write_audio(root / "rirs" / name, response, SAMPLE_RATE)
        seconds, decay = f"{LENGTH / SAMPLE_RATE:.3f}", f"{reverberation_time(response):.2f}"
        rows["rirs"][number] = [[name, f"room_{room}", seconds, decay]]

    def clip_job(clip: _Clip, folder: str, prefix: str) -> None:
        samples, events = _make_clip(seed, clip, counts)
        name = f"{prefix}_{clip.index:03d}.flac"
        write_audio(root / "audio" / folder / name, samples, SAMPLE_RATE)
        if clip.part == "weak":
            rows["weak"][clip.index] = [[name, ",".join(sorted({event.label for event in events}))]]
        elif clip.part in rows:
            rows[clip.part][clip.index] = _strong_rows(name, events)

    for label in GENERATORS:
        jobs += [lambda label=label, index=index: event_job(label, index) for index in range(counts.events)]
    jobs += [lambda index=index: background_job(index) for index in range(counts.backgrounds)]
    for room in range(counts.rooms):
        jobs += [lambda room=room, k=k: response_job(room, k) for k in range(counts.positions)]
    for part, clips, most, pool, folder, prefix in (
        ("weak", counts.weak, 3, None, "train/weak", "weak"),
        ("unlabelled", counts.unlabelled, 3, None, "train/unlabel_in_domain", "unlab"),
        ("synthetic", counts.synthetic, 3, counts.events, "train/synthetic20/soundscapes", "synth"),
        ("validation", counts.validation, 4, None, "validation", "val"),
    ):
        planned = _plan(seed, part, clips, most, pool)
        jobs += [lambda clip=clip, f=folder, p=prefix: clip_job(clip, f, p) for clip in planned]

    # Threads, not processes: NumPy's loops and FFTs release the lock, and starting an interpreter costs seconds.
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        finished = pool.map(lambda job: job(), jobs)
        for _ in tqdm(finished, total=len(jobs), desc="built-in corpus", unit="file", disable=not progress):
            pass
    finally:
        pool.shutdown(cancel_futures=True)

    def ordered(name: str) -> list[list[str]]:
        return [row for index in sorted(rows[name]) for row in rows[name][index]]

    strong = ("filename", "onset", "offset", "event_label")
    metadata = root / "metadata"
    _write_table(metadata / "train/weak.tsv", ("filename", "event_labels"), ordered("weak"))
    names = [[f"unlab_{index:03d}.flac"] for index in range(counts.unlabelled)]
    _write_table(metadata / "train/unlabel_in_domain.tsv", ("filename",), names)
    _write_table(metadata / "train/synthetic20/soundscapes.tsv", strong, ordered("synthetic"))
    _write_table(metadata / "validation/validation.tsv", strong, ordered("validation"))
    durations = [[f"val_{index:03d}.flac", f"{CLIP_SECONDS:.1f}"] for index in range(counts.validation)]
    _write_table(metadata / "validation/validation_durations.tsv", ("filename", "duration"), durations)
    _write_table(root / "rirs/rirs.tsv", ("filename", "room", "seconds", "t20"), ordered("rirs"))
    (root / "README.txt").write_text(_README.format(seed=seed, version=VERSION, size=size), encoding="utf-8")
    write_manifest(root, seed, size)


def write_manifest(root: Path, seed: int, size: str) -> None:
    manifest = {**identity(seed, size), "audio_files": count_audio(root), "counts": asdict(SIZES[size])}
    (root / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def identity(seed: int, size: str) -> dict[str, object]:
    """What decides every sample of the corpus."""
    return {"version": VERSION, "seed": seed, "size": size}


def count_audio(root: Path) -> int:
    return sum(1 for _ in root.rglob("*.flac"))
