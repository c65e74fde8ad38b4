"""What a run shows while it goes on: curves in its folder, and a clip as it is separated so far in TensorBoard."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from task_aware.data.labels import Event
from task_aware.training import progress
from task_aware.training.folder import read_history
from task_aware.training.loop import fit
from task_aware.training.progress import Curves, EpochEnd, Preview, draw_curves

from .test_folder import Data, Model, config


def test_curves_are_renewed_once_there_is_a_checkpoint(tmp_path, monkeypatch, caplog):
    """Before that, what a stopped run leaves must not keep a new one out. Lightning says nothing of TPUs and tips."""
    caplog.set_level(logging.INFO)
    picture, seen, drawn = tmp_path / "training.png", [], []

    class Look(Callback):
        def on_train_epoch_start(self, *_: object) -> None:
            seen.append(picture.exists())

    def draw(out):
        drawn.append(read_history(out)["train/loss"][-1][0])
        draw_curves(out)

    monkeypatch.setattr(Curves, "share", 1e9)
    monkeypatch.setattr(progress, "draw_curves", draw)
    given = config(tmp_path, 8)
    fit(Model(), Data(), given, out=tmp_path, max_steps=8, callbacks=[Curves(tmp_path), Look()])
    assert seen == [False, False, True, True]
    assert drawn == [3, 3, 7]  # every fourth step is logged
    resumed = replace(given, resume=True, preview=False)  # an option that may change
    fit(Model(), Data(), resumed, out=tmp_path, max_steps=8)
    assert [record.message for record in caplog.records if record.levelno < logging.WARNING] == []


def test_what_is_shown_takes_little_of_the_time(monkeypatch):
    clock, shown = [100.0], []

    class Slow(EpochEnd):
        share = 0.03

        def show(self, trainer):
            shown.append(clock[0])
            clock[0] += 1.0

    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    slow, first = Slow(), SimpleNamespace(is_global_zero=True)
    for _ in range(100):
        clock[0] += 10.0
        slow.on_train_epoch_end(first, None)
        Slow().on_train_epoch_end(SimpleNamespace(is_global_zero=False), None)
    assert len(shown) == 25  # every fourth epoch
    assert len(shown) <= Slow.share * (clock[0] - 100.0)


@pytest.mark.parametrize("kind", ["small_separator", "class_separator"])
def test_a_clip_is_seen_and_heard_as_it_is_separated(kind, request, tmp_path):
    system = request.getfixturevalue(kind).train()
    samples = (0.1 * np.random.default_rng(0).standard_normal(16000)).astype(np.float32)
    logger = TensorBoardLogger(tmp_path, name="logs", version="part_0")
    trainer = SimpleNamespace(loggers=[logger, CSVLogger(tmp_path)], global_step=7, is_global_zero=True)
    before = torch.get_rng_state()
    Preview(system, samples, [Event(0.1, 0.5, "Dog")], "$odd_{").on_train_epoch_end(trainer, None)
    assert system.training and torch.equal(torch.get_rng_state(), before)  # training goes on as without it
    logger.experiment.flush()
    board = EventAccumulator(str(tmp_path / "logs/part_0"))
    board.Reload()
    (image,) = board.Images("clip/separation")
    assert image.step == 7 and Image.open(io.BytesIO(image.encoded_image_string)).size[0] == 1404
    sounds = {
        tag: soundfile.read(io.BytesIO(board.Audio(tag)[0].encoded_audio_string))[0] for tag in board.Tags()["audio"]
    }
    np.testing.assert_allclose(sounds.pop("clip/mixture"), samples, atol=1e-4)
    if kind == "small_separator":  # untrained; of classes, it hears none
        assert list(sounds) == ["clip/source_1", "clip/source_2", "clip/source_3"]
        assert all(0.01 < np.std(sound) / np.std(samples) < 1 for sound in sounds.values())


@pytest.mark.parametrize(("precision", "fast", "warns"), [("bf16-mixed", False, True), ("bf16-mixed", True, False),
                                                          ("32-true", False, False)])  # fmt: skip
def test_bfloat16_without_instructions_for_it_is_said_to_be_slow(tmp_path, monkeypatch, caplog, precision, fast, warns):
    monkeypatch.setattr("task_aware.models.precision.computes_in_bfloat16", lambda: fast)
    given = replace(config(tmp_path, 1), precision=precision, accelerator="cpu")
    fit(Model(), Data(), given, out=tmp_path, max_steps=1)
    assert ("no instructions for bfloat16" in caplog.text) == warns
