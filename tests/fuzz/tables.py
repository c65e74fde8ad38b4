"""Mutated tables through everything that reads one: splits, events, rooms, lists of recordings, results of `infer`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from task_aware.base.errors import DataError
from task_aware.data.desed import SPLITS, read_events, read_split, split_paths, write_events
from task_aware.data.labels import DESED_CLASSES, LabelEncoder
from task_aware.data.rirs import list_rirs
from task_aware.data.verify import verify
from task_aware.data.verify_tables import classes_table, splits_table
from task_aware.inference.batch import seconds_of
from task_aware.inference.outputs import Outputs, Wanted
from task_aware.inference.recordings import Recording, find_recordings, shard

from .mutations import mutate_table

STRONG = (
    "filename\tonset\toffset\tevent_label\n"
    "a.wav\t0.5\t1.5\tDog\na.wav\t0\t10.115\tSpeech\nb.wav\t\t\t\nsub/c.wav\t1\t2\tCat\n"
)
WEAK = 'filename\tevent_labels\na.wav\tSpeech,Dog\n"b.wav"\tFrying\ngone.wav\tSpeech\n'
UNLABELLED = "filename\na.wav\nb.wav\nsub/c.wav\n"
ROOMS = "filename\troom\na.wav\tkitchen\nb.wav\tkitchen\nsub/c.wav\t2\n"
EVENTS = "onset\toffset\tevent_label\n0.500\t1.500\tDog\n1.000\t2.000\tSpeech\n"


def is_sentence(error: BaseException) -> bool:
    return isinstance(error, DataError) and "\n" not in str(error)


def prepare(folder: Path) -> Callable[[Random, Path], None]:
    clips = folder / "clips"
    (clips / "sub").mkdir(parents=True)
    for name in ("a.wav", "b.wav", "sub/c.wav"):
        soundfile.write(clips / name, np.full(160, 0.1), 16000)

    def case(random: Random, own: Path) -> None:
        random.choice([split, check, events, rooms, recordings, results])(random, own, clips)

    return case


def write(path: Path, random: Random, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mutate_table(random, text))
    return path


def corpus(random: Random, root: Path, clips: Path, name: str) -> None:
    """A folder in DESED's layout with one table, mutated, and its recordings."""
    table, folder = split_paths(root, name)
    write(table, random, {"weak": WEAK, "unlabelled": UNLABELLED}.get(name, STRONG))
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(clips, folder)


def split(random: Random, own: Path, clips: Path) -> None:
    name = random.choice(SPLITS)
    corpus(random, own, clips, name)
    problems: list[str] | None = random.choice([None, []])
    found = read_split(own, name, max_missing=random.choice([0.5, 1.0]), problems=problems)
    encoder = LabelEncoder(DESED_CLASSES)
    for clip in found.clips:
        assert clip.path.is_file()
        assert np.isfinite(encoder.strong(clip.events or (), 40, 0.255)).all()
        encoder.weak(clip.labels or ())
    assert all("\n" not in problem for problem in problems or ())


def check(random: Random, own: Path, clips: Path) -> None:
    for name in random.sample(SPLITS, 2):
        corpus(random, own, clips, name)
    report = verify(own, progress=False)
    splits_table(report), classes_table(report)
    assert all("\n" not in line for line in (*report.problems, *report.notes))


def events(random: Random, own: Path, clips: Path) -> None:
    """What was read comes back when it is written and read again."""
    found = read_events(write(own / "events.tsv", random, STRONG))
    write_events(own / "again.tsv", found)
    again = read_events(own / "again.tsv")
    assert {name: [each.label for each in of] for name, of in found.items()} == {
        name: [each.label for each in of] for name, of in again.items()
    }


def rooms(random: Random, own: Path, clips: Path) -> None:
    for path in clips.rglob("*.wav"):
        target = own / path.relative_to(clips)
        target.parent.mkdir(exist_ok=True)
        os.symlink(path, target)
    write(own / "rirs.tsv", random, ROOMS)
    found = list_rirs(own)
    assert sum(map(len, found.rooms.values())) == 3


def recordings(random: Random, own: Path, clips: Path) -> None:
    os.symlink(clips, own / "clips")
    prefix = random.choice(["clips/", ""])
    text = random.choice([UNLABELLED, UNLABELLED.partition("\n")[2], WEAK, STRONG]).replace("\n", f"\n{prefix}")
    found = find_recordings([str(write(own / random.choice(["list.txt", "list.tsv"]), random, text))])
    assert len({each.name for each in found}) == len({each.stem for each in found}) == len(found)
    seconds_of(shard(found, "1/2"), 1)


def results(random: Random, own: Path, clips: Path) -> None:
    """Tables of earlier runs, of which `infer --skip-existing` makes one."""
    outputs = Outputs(own, Wanted())
    names = ("a", "b")
    for name in names:
        write(own / "events" / f"{name}.tsv", random, EVENTS)
    outputs.write_tables([Recording(clips / f"{name}.wav", f"{name}.wav", name) for name in names], {}, None)
