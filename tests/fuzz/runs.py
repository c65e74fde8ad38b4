"""Mutated files of earlier runs: their options, scores, logs and pages, which later commands read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from random import Random

from jsonargparse import Namespace

from task_aware.base.errors import CheckpointError, DataError
from task_aware.data.labels import Event
from task_aware.data.unfinished import begin
from task_aware.study.jobs import Job
from task_aware.study.results import DECISIVE, check_same, warn_unseparated
from task_aware.training.config import TrainConfig
from task_aware.training.folder import check_new, check_same_options, clear, read_history, write_options
from task_aware.viewing.page import DATA, write_page

from .mutations import mutate_json, mutate_table

METRICS = json.dumps(
    {
        "separated": {"event": {"macro": 0.5, "micro": 0.5, "classes": {"Dog": 0.5}}},
        "separation": {"spread": 0.5, "relative_loss": 0.9, "sdr_gain": 3.0},
        "left_out": [],
    }
)


def is_sentence(error: BaseException) -> bool:
    return isinstance(error, (CheckpointError, DataError)) and "\n" not in str(error)


def prepare(folder: Path) -> Callable[[Random, Path], None]:
    config = TrainConfig(out=folder)
    write_options(folder, config)
    saved = (folder / "options.json").read_text()
    decisive = Namespace({name: None for name in DECISIVE} | {"recipe": "builtin", "max_steps": 10})
    check_same(folder / "study.json", decisive)
    study = (folder / "study.json").read_text()

    def options(random: Random, own: Path) -> None:
        """Whether a run may begin or go on in the folder of another."""
        (own / "options.json").write_bytes(mutate_json(random, saved))
        if random.random() < 0.3:
            (own / "metrics.json").write_text(METRICS)
        if random.random() < 0.5:
            check_same_options(own, config)
        else:
            check_new(own)
            clear(own)
            assert (own / "options.json").is_file()

    def results(random: Random, own: Path) -> None:
        """What a study reads of its runs."""
        (own / "study.json").write_bytes(mutate_json(random, study))
        (own / "metrics.json").write_bytes(mutate_json(random, METRICS))
        if random.random() < 0.5:
            check_same(own / "study.json", decisive)
        else:
            assert isinstance(warn_unseparated([Job("a run", own, "train", ())]), str)

    def history(random: Random, own: Path) -> None:
        """The curves of a run, of which its picture is made."""
        log = own / "logs/part_0/metrics.csv"
        log.parent.mkdir(parents=True)
        text = mutate_table(random, "epoch\tstep\ttrain/loss\tvalidation/f1\n0\t1\t0.5\t\n0\t2\t0.25\t0.5\n")
        log.write_bytes(text.replace(b"\t", b","))
        for curve in read_history(own).values():
            assert all(isinstance(step, int) and isinstance(value, float) for step, value in curve)

    def soundscapes(random: Random, own: Path) -> None:
        """What an interrupted `mix` leaves: only what is of it goes."""
        (own / "soundscapes").mkdir()
        ours = random.random() < 0.5
        (own / "soundscapes" / ("0.wav" if ours else "mine.wav")).touch()
        (own / "mix.json").write_bytes(mutate_json(random, '{"seed": 0, "data": "x", "number": 3, "mixing": {}}'))
        try:
            begin(own / "mix.json", {}, [own / "soundscapes"], re.compile(r"\d\.wav"))
        finally:
            assert ours or (own / "soundscapes/mine.wav").is_file()

    def page(random: Random, own: Path) -> None:
        """The page of results whose parts were written by earlier runs."""
        (own / DATA).mkdir(parents=True)
        (own / "a.flac").write_bytes(b"fLaC")
        for name in "ab":
            summary = {"name": name, "seconds": 1.0, "labels": ["Dog"], "events": 1, "bytes": 9}
            tracks = [{"name": "", "audio": "a.flac", "level": None, "span": 1.0, "tiles": ["a.flac"]}]
            content = {"name": name, "seconds": 1.0, "tracks": tracks, "rows": {"detected": [[0.0, 1.0, "Dog"]]}}
            changed = random.randrange(3)
            first = mutate_json(random, json.dumps(summary)) if changed != 1 else json.dumps(summary).encode()
            second = mutate_json(random, json.dumps(content)) if changed != 0 else json.dumps(content).encode()
            (own / DATA / f"{name}.js").write_bytes(b"//" + first + b"\nreceive(" + second + b");\n")
        write_page(own, {"a": [Event(0.0, 1.0, "Dog")]})

    def case(random: Random, own: Path) -> None:
        random.choice([options, results, history, soundscapes, page])(random, own)

    return case
