"""Damaged caches: of decoded recordings, which are decoded again, and of the built-in corpus."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from task_aware.base.errors import DataError
from task_aware.data.recordings import Recordings
from task_aware.synthesis.build import identity
from task_aware.synthesis.cache import make_corpus

from .mutations import mutate, mutate_json

SEED, SIZE = 3, "tiny"


def is_sentence(error: BaseException) -> bool:
    return isinstance(error, DataError) and "\n" not in str(error)


def prepare(folder: Path) -> Callable[[Random, Path], None]:
    bank = folder / "bank"
    bank.mkdir()
    for seed, name in enumerate("abc"):
        soundfile.write(bank / f"{name}.wav", np.random.default_rng(seed).uniform(-0.5, 0.5, 800), 16000)
    (bank / "empty.wav").touch()
    paths = [path.relative_to(bank) for path in sorted(bank.iterdir())]

    def opened(where: Path) -> Recordings:
        os.environ["TASK_AWARE_CACHE"] = str(where)
        return Recordings(bank, paths, sample_rate=16000, max_broken=0.5)

    def samples(of: Recordings) -> list[list[int]]:
        return [of.read(path).samples.tolist() for path in of.usable(paths)]

    first = opened(folder / "cache")
    expected, content, name = samples(first), first.file.read_bytes(), first.file.relative_to(folder / "cache")
    index = int.from_bytes(content[-8:], "little")

    def decoded(random: Random, own: Path) -> None:
        """Damage to anything but the samples is found, and they are the same again; so they are in the next run."""
        file = own / "cache" / name
        file.parent.mkdir(parents=True)
        if random.random() < 0.5:
            damaged = content[:index] + mutate(random, content[index:], content)
        else:
            damaged = mutate(random, content, content)
        samples_change = damaged[index:] == content[index:]  # which nothing tells
        if random.random() < 0.05:
            file.mkdir()
        else:
            file.write_bytes(damaged)
        for _ in range(2):
            found = opened(own / "cache")
            assert samples_change or samples(found) == expected
            assert list(map(len, samples(found))) == list(map(len, expected))

    root = folder / "corpus"
    (root / "audio").mkdir(parents=True)
    (root / "audio/a.flac").touch()
    manifest = json.dumps(identity(SEED, SIZE) | {"audio_files": 1})

    def corpus(random: Random, own: Path) -> None:
        """A manifest that is not as it was written is refused."""
        (root / "manifest.json").write_bytes(mutate_json(random, manifest))
        make_corpus(root, seed=SEED, size=SIZE, progress=False)
        assert (root / "audio/a.flac").is_file()

    def case(random: Random, own: Path) -> None:
        random.choice([decoded, decoded, corpus])(random, own)

    return case
