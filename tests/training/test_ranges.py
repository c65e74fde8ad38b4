"""Options out of their range are named before anything is computed."""

from __future__ import annotations

import pytest
import torch

from task_aware import evaluate, train, train_sed, train_sep
from task_aware.models.opening import BUILTIN_DETECTOR, pick_device


@pytest.fixture(autouse=True)
def nothing_is_computed(monkeypatch):
    """A corpus or a detector is not even opened."""

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("the options were not checked first")

    for name in ("setup.corpus_of", "frozen.get_detector"):
        monkeypatch.setattr(f"task_aware.training.{name}", opened)


@pytest.mark.parametrize(
    ("command", "option", "wanted"),
    [
        (train, "batch.strong=0", "losses.mse is trained on these clips"),
        (train, "batch.strong=-1", "give at least 0 and at most 4096"),
        (train, "batch.strong_seconds=.nan", "give at least 0.1 and at most 3600, and a finite number"),
        (train, "separator.n_sources=40", "give at least 1 and at most 32"),
        (train, "separator.n_sources=0", "give at least 1 and at most 32"),
        (train, "optimiser.learning_rate=0", "give a number above 0"),
        (train, "optimiser.separation_share=1.5", "give at least 0 and at most 1"),
        (train, "optimiser.separation_strong=0", "give at least 1"),
        (train, "optimiser.gradient_clip=-1", "give at least 0"),
        (train, "losses.own=-1", "give at least 0"),
        (train, "losses.mask_floor=1", "give at least 0 and at most 0.99"),
        (train, "seed=-1", "give at least 0"),
        (train, "devices=0", "give at least 1"),
        (train, "workers=-1", "give at least 0"),
        (train_sed, "training.batch.strong=0", "give at least 1"),
        (train_sed, "training.crnn.dropout=2", "give at least 0"),
        (train_sed, "training.learning_rate=.inf", "give a number above 0"),
        (train_sep, "denoiser.mixtures=0", "give at least 1"),
        (train_sep, "denoiser.seconds=-3", "give at least 0.1"),
    ],
)
def test_an_option_out_of_range_is_named_at_the_start(command, option, wanted, tmp_path):
    name, _, value = option.partition("=")
    shown = {"0": "(0|0.0)", "-1": "(-1|-1.0)", "1": "1.0", "2": "2.0", "-3": "-3.0", ".nan": "nan", ".inf": "inf"}.get(
        value, value
    )
    with pytest.raises(ValueError, match=rf"--{name} is {shown}[;,].*{wanted}"):
        command.main([f"--{option}", f"--out={tmp_path / 'out'}", "--accelerator=cpu"])
    assert not (tmp_path / "out").exists()


def test_losses_on_clips_that_a_step_does_not_have(tmp_path):
    for options, message in [
        (["losses.weak=1", "batch.weak=0"], "--batch.weak is 0, but losses.weak is trained on these clips"),
        (["losses.teacher=1", "batch.weak=0", "batch.unlabelled=0"], "--batch.weak and batch.unlabelled is 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            train.main([f"--{option}" for option in (*options, f"out={tmp_path / 'out'}")])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", [train, train_sed, train_sep])
def test_a_gpu_that_is_not_there_is_said_at_the_start(command, tmp_path, tiny_corpus):
    with pytest.raises(ValueError, match="--accelerator is gpu, but PyTorch finds no GPU here; give auto or cpu"):
        command.main(["--accelerator=gpu", f"--out={tmp_path}"])
    with pytest.raises(ValueError, match="finds no GPU"):
        evaluate.main([str(BUILTIN_DETECTOR), f"--data={tiny_corpus}", "--accelerator=gpu", f"--out={tmp_path}"])
    assert not any(tmp_path.iterdir()) and pick_device("auto").type == "cpu"


def test_more_gpus_than_there_are_are_said_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="--devices is 4, but this machine has 1 GPUs; give at most as many"):
        train.main(["--devices=4", f"--out={tmp_path}"])
