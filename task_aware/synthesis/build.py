"""Writes the built-in corpus in DESED's layout."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from task_aware.base.tables import write_table
from task_aware.data.audio import write_audio
from task_aware.data.labels import DESED_CLASSES
from task_aware.synthesis.contents import (
    VERSION,
    ClipPlan,
    make_clip,
    make_response,
    make_soundbank_background,
    make_soundbank_event,
    plan_clips,
)
from task_aware.synthesis.rooms import reverberation_time
from task_aware.synthesis.scenes import CLIP_SECONDS
from task_aware.synthesis.signals import SAMPLE_RATE
from task_aware.synthesis.sizes import SIZES, Size

Row = Sequence[str]

_README = """\
A corpus of domestic sound events made by task_aware from seed {seed} (version {version}, size "{size}").

Every sound is synthesised. The corpus contains no recordings, so nobody else holds rights in it. It has DESED's
layout and ten classes, and serves to try out training, separation and scoring without a download. Scores on it say
nothing about real recordings.

audio/train/soundbank/foreground/<Class>   isolated events
audio/train/soundbank/background/ambient   backgrounds of 12 s
audio/train/weak, unlabel_in_domain        clips of 10 s, with clip labels and without labels
audio/train/synthetic20/soundscapes        clips mixed from the soundbank, with onsets and offsets
audio/validation                           clips with onsets and offsets, made of other sounds and rooms
metadata                                   the labels, tab-separated
rirs, rirs/rirs.tsv                        room impulse responses of the training rooms

Events are 2 to 25 dB louder than the background, which has about -50 dBFS RMS; half of the clips are reverberant. A
label spans the 20 ms frames within 40 dB of the event's loudest one, before reverberation.
"""

_STRONG_HEADER = ("filename", "onset", "offset", "event_label")
# part: folder below audio/, prefix of its files, table below metadata/, its header
_CLIPS = {
    "weak": ("train/weak", "weak", "train/weak.tsv", ("filename", "event_labels")),
    "unlabelled": ("train/unlabel_in_domain", "unlab", "train/unlabel_in_domain.tsv", ("filename",)),
    "synthetic": (
        "train/synthetic20/soundscapes",
        "synth",
        "train/synthetic20/soundscapes.tsv",
        _STRONG_HEADER,
    ),
    "validation": ("validation", "val", "validation/validation.tsv", _STRONG_HEADER),
}


def build(root: Path, *, seed: int, size: str, progress: bool) -> None:
    """Writes the corpus into the empty folder `root`; the manifest is written last.

    Raises:
        OSError, soundfile.SoundFileError: the folder cannot be written, or the disk is full.
    """
    counts = SIZES[size]
    metadata = root / "metadata"
    plans = {part: plan_clips(seed, part, counts) for part in _CLIPS}
    jobs: list[Callable[[], list[Row]]] = []
    for label in DESED_CLASSES:
        jobs += [partial(_write_event, root, seed, label, index) for index in range(counts.events)]
    jobs += [partial(_write_background, root, seed, index) for index in range(counts.backgrounds)]
    responses = len(jobs)
    for room in range(counts.rooms):
        jobs += [partial(_write_response, root, seed, room, k, counts) for k in range(counts.positions)]
    clips = len(jobs)
    jobs += [partial(_write_clip, root, seed, clip, counts) for planned in plans.values() for clip in planned]

    rows = _run(jobs, progress)

    write_table(root / "rirs/rirs.tsv", ("filename", "room", "seconds", "t20"), chain(*rows[responses:clips]))
    first = clips
    for part, planned in plans.items():
        _, _, table, header = _CLIPS[part]
        write_table(metadata / table, header, chain(*rows[first : first + len(planned)]))
        first += len(planned)
    durations = [(f"val_{index:03d}.flac", f"{CLIP_SECONDS:.1f}") for index in range(counts.validation)]
    write_table(metadata / "validation/validation_durations.tsv", ("filename", "duration"), durations)
    (root / "README.txt").write_text(_README.format(seed=seed, version=VERSION, size=size), encoding="utf-8")
    manifest = {**identity(seed, size), "audio_files": len(jobs), "counts": asdict(counts)}
    (root / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def identity(seed: int, size: str) -> dict[str, object]:
    """The values that determine every sample of the corpus."""
    return {"version": VERSION, "seed": seed, "size": size}


def _run(jobs: Sequence[Callable[[], list[Row]]], progress: bool) -> list[list[Row]]:
    """Runs the jobs, each of which writes one file, and returns their results in order.

    Uses threads instead of processes: NumPy's loops and transforms release the interpreter lock, and a new
    interpreter takes seconds to start.
    """
    threads = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        done = threads.map(lambda job: job(), jobs)
        return list(tqdm(done, total=len(jobs), desc="built-in corpus", unit="file", disable=not progress))
    finally:
        threads.shutdown(cancel_futures=True)


def _write_event(root: Path, seed: int, label: str, index: int) -> list[Row]:
    folder = root / "audio/train/soundbank/foreground" / label
    name = f"{label.lower()}_{index:03d}.flac"
    write_audio(folder / name, make_soundbank_event(seed, label, index), SAMPLE_RATE)
    return []


def _write_background(root: Path, seed: int, index: int) -> list[Row]:
    folder = root / "audio/train/soundbank/background/ambient"
    write_audio(folder / f"ambient_{index:03d}.flac", make_soundbank_background(seed, index), SAMPLE_RATE)
    return []


def _write_response(root: Path, seed: int, room: int, position: int, size: Size) -> list[Row]:
    response = make_response(seed, room, position, size)
    name = f"room_{room}_position_{position}.flac"
    write_audio(root / "rirs" / name, response, SAMPLE_RATE)
    seconds = len(response) / SAMPLE_RATE
    return [(name, f"room_{room}", f"{seconds:.3f}", f"{reverberation_time(response):.2f}")]


def _write_clip(root: Path, seed: int, clip: ClipPlan, size: Size) -> list[Row]:
    """Writes a clip and returns its rows of the split's table."""
    folder, prefix, _, _ = _CLIPS[clip.part]
    samples, events = make_clip(seed, clip, size)
    name = f"{prefix}_{clip.index:03d}.flac"
    write_audio(root / "audio" / folder / name, samples, SAMPLE_RATE)
    if clip.part == "unlabelled":
        return [(name,)]
    if clip.part == "weak":
        return [(name, ",".join(sorted({event.label for event in events})))]
    if not events:
        return [(name, "", "", "")]
    return [(name, f"{event.onset:.3f}", f"{event.offset:.3f}", event.label) for event in events]
