"""How `infer` grows with the length of a recording, beside the same model by hand on the whole recording."""

from __future__ import annotations

import csv
import shutil
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from benchmarks.side_by_side import disagreement
from task_aware.data.audio import read_audio
from task_aware.synthesis import builtin_corpus

from .growing import NATIVE, Case, Command, Part, cores_of_machine

BY_HAND = "torchaudio and PyTorch, at once"
RATE = 16000
#: A clip of ten seconds, then background: what a recording consists of, again and again.
BLOCK_SECONDS = 600
#: Length of the recordings that are heard on several cores.
CORES_SECONDS = 600


def write_recording(path: Path, seconds: float) -> None:
    """Writes a clip of the built-in corpus and ten minutes of faint noise, as often as it takes."""
    corpus = builtin_corpus(size="tiny", progress=False)
    clip = read_audio(min((corpus / "audio/validation").glob("*.flac")))[: 10 * RATE]
    block = 1e-3 * np.random.default_rng(0).standard_normal(BLOCK_SECONDS * RATE).astype(np.float32)
    block[: len(clip)] += clip
    with soundfile.SoundFile(path, "w", RATE, 1, subtype="PCM_16") as file:
        for begin in range(0, round(seconds * RATE), len(block)):
            file.write(block[: round(seconds * RATE) - begin])


class Recordings:
    """Makes recordings in a temporary folder, and what hears them."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    def scores(self, folder: Path) -> tuple[Tensor]:
        """What `infer --scores` has written."""
        with (folder / "scores/recording.tsv").open(encoding="utf-8", newline="") as file:
            rows = [[float(x) for x in row[2:]] for row in [*csv.reader(file, delimiter="\t")][1:]]
        return (torch.tensor(rows, dtype=torch.float64),)

    def on_cores(self, cores: float, without: frozenset[str]) -> Case:
        """The recording of `CORES_SECONDS` on as many cores."""
        return self.case(CORES_SECONDS, without, int(cores))

    def case(self, seconds: float, without: frozenset[str], cores: int | None = None) -> Case:
        """Recordings of one window are compared; what windows change in longer ones is in docs/inference.md."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        recording, out, by_hand = (self.scratch / name for name in ("recording.wav", "out", "scores.npy"))
        write_recording(recording, seconds)
        one_window = seconds <= 20
        options = ["--demo", str(recording), f"--out={out}", "--device=cpu", *["--scores"] * one_window]

        def of_hand() -> tuple[Tensor, ...]:
            return (torch.from_numpy(np.load(by_hand)),)

        def of_infer() -> tuple[Tensor, ...]:
            assert (out / "events.tsv").is_file(), "no events were written"
            if one_window and by_hand.is_file():
                problem = disagreement(self.scores(out), tuple(x.double() for x in of_hand()), 1e-3)
                assert not problem, problem
            return ()

        hand = Command("benchmarks.growth.by_hand", [str(recording), str(by_hand)], of_hand, cores)
        infer = Command("task_aware.infer", options, of_infer, cores)
        return Case({NATIVE: infer} if BY_HAND in without else {BY_HAND: hand, NATIVE: infer})


def parts(scratch: Path) -> list[Part]:
    return [
        Part(
            "length",
            "task_aware.infer --demo, start included",
            "length of the recording",
            (10, 60, 600, 3600, 6 * 3600, 24 * 3600),
            (10,),
            Recordings(scratch / "length").case,
            seconds=8.0,
            most_seconds=8.0,
            most_mib=1000.0,
            ticks=("10 s", "1 min", "10 min", "1 h", "6 h", "24 h"),
        ),
        Part(
            "cores",
            "task_aware.infer --demo of ten minutes, start included",
            "cores",
            cores_of_machine(),
            (),  # that is quick in `length`
            Recordings(scratch / "cores").on_cores,
            seconds=30.0,
            most_seconds=30.0,
            by_the_clock=True,
        ),
    ]


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for recordings of up to 24 hours, 2.8 GB."""
    return tempfile.TemporaryDirectory(prefix="growth-")
