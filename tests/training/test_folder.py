"""The folder of a run: nothing is replaced or removed that is not the run's own, and what is there is of one run."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import LightningDataModule, LightningModule
from torch.utils.data import DataLoader

from task_aware.base import checkpoint, cli
from task_aware.base.errors import CheckpointError, DataError
from task_aware.data.audio import write_audio
from task_aware.training.config import OptimiserConfig, TrainConfig
from task_aware.training.folder import LOGS, OPTIONS, RESULTS, last_checkpoint, read_history
from task_aware.training.identity import identified
from task_aware.training.loop import fit

STEPS_PER_EPOCH = 2


class Model(LightningModule):
    """A weight that each step moves."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = (self.weight * batch).sum()
        self.log("train/loss", loss.detach())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Data(LightningDataModule):
    """The batch of each step is its number, from 1."""

    def train_dataloader(self) -> DataLoader:
        done = self.trainer.global_step
        return DataLoader(torch.arange(done + 1.0, done + 1.0 + STEPS_PER_EPOCH), batch_size=None)


def weight_after(steps: int) -> float:
    return pytest.approx(1 - 0.1 * sum(range(1, steps + 1)), abs=1e-6)


def config(out: Path, max_steps: int = 4, **options: object) -> TrainConfig:
    return TrainConfig(out=out, optimiser=OptimiserConfig(max_steps=max_steps), accelerator="cpu", **options)


def train(given: TrainConfig, model: LightningModule | None = None) -> None:
    """Trains, and writes results as the commands do."""
    steps = given.optimiser.max_steps
    fit(model or Model(), Data(), given, out=given.out, max_steps=steps)
    (given.out / "metrics.json").write_text(json.dumps({"steps": steps}))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_data(root: Path, n_samples: int = 1600) -> Path:
    (root / "metadata" / "validation").mkdir(parents=True)
    (root / "metadata" / "validation" / "validation.tsv").write_text("filename\nclip.wav\n")
    write_audio(root / "audio" / "validation" / "clip.wav", np.zeros(n_samples), 16000)
    return root


def test_a_run_removes_nothing_that_it_did_not_write(tmp_path):
    own = [tmp_path / LOGS / "mine.log", tmp_path / LOGS / "deep" / "metrics.csv", tmp_path / "notes.txt"]
    for path in own:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    train(config(tmp_path))
    assert all(path.read_text() == "mine" for path in own)
    assert read_history(tmp_path)["train/loss"]


@pytest.mark.parametrize("name", [OPTIONS, f"{LOGS}/part_0/metrics.csv", "checkpoints/last.safetensors", *RESULTS])
def test_a_run_does_not_begin_over_files_of_others(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(CheckpointError, match=r"give another --out"):
        train(config(tmp_path))
    assert contents(tmp_path) == {name: b'{"mine": 1}'}


def test_a_second_run_replaces_nothing_of_the_first(tmp_path):
    train(config(tmp_path))
    before = contents(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"holds results already \(metrics.json, last.safetensors\); give another"
    ):
        train(config(tmp_path, seed=1))
    assert contents(tmp_path) == before


def test_what_a_run_without_a_checkpoint_left_goes_and_other_files_stay(tmp_path):
    class Fails(Model):
        def training_step(self, batch, batch_idx):
            if self.global_step == 1:
                raise RuntimeError("killed")
            return super().training_step(batch, batch_idx)

    with pytest.raises(RuntimeError, match="killed"):
        train(config(tmp_path, seed=1), Fails())
    part = tmp_path / LOGS / "part_0"
    assert list(part.glob("events.out.tfevents.*"))
    (part / "note.txt").write_text("mine")
    train(config(tmp_path))
    assert (part / "note.txt").read_text() == "mine" and not list(part.glob("events*"))
    assert json.loads((tmp_path / OPTIONS).read_text())["seed"] == 0


def test_a_run_may_follow_one_of_a_few_steps_to_try_it_out(tmp_path):
    train(config(tmp_path, max_steps=2, fast_dev_run=True))
    with pytest.raises(RuntimeError):
        train(config(tmp_path), Model().requires_grad_(False))
    assert not (tmp_path / "metrics.json").exists() and not last_checkpoint(tmp_path).exists()
    train(config(tmp_path))


def test_a_resumed_run_may_be_longer_and_keeps_its_results_until_it_has_others(tmp_path):
    class Fails(Model):
        def training_step(self, batch, batch_idx):
            if self.global_step == 7:
                raise RuntimeError("killed")
            return super().training_step(batch, batch_idx)

    train(config(tmp_path))
    options = (tmp_path / OPTIONS).read_bytes()
    longer = config(tmp_path, max_steps=8, resume=True)
    with pytest.raises(RuntimeError, match="killed"):
        train(longer, Fails())
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"steps": 4}
    assert (tmp_path / OPTIONS).read_bytes() == options  # those of the results
    with pytest.raises(CheckpointError, match=r"has \d steps already, more than the 4 of --max-steps"):
        train(config(tmp_path, resume=True))
    model = Model()
    train(longer, model)
    assert float(model.weight) == weight_after(8)
    assert json.loads((tmp_path / OPTIONS).read_text())["optimiser"]["max_steps"] == 8
    with pytest.raises(CheckpointError, match=r"optimiser.max_steps was 8 and is 6"):
        train(config(tmp_path, max_steps=6, resume=True))


def test_data_are_compared_by_what_they_hold(tmp_path, monkeypatch):
    out, data = tmp_path / "out", make_data(tmp_path / "data")
    detector = tmp_path / "detector.safetensors"
    detector.write_bytes(b"weights")
    given = config(out, data=data, detector=str(detector), resume=True)
    train(replace(given, resume=False))
    monkeypatch.chdir(tmp_path)
    train(replace(given, data=Path("data"), detector="detector.safetensors"))
    shutil.move(data, tmp_path / "moved")
    train(replace(given, data=tmp_path / "moved"))
    train(replace(given, data=tmp_path / "moved", rirs=None))
    with pytest.raises(DataError, match=r"data is not a folder; check the path"):
        train(given)
    with pytest.raises(CheckpointError, match=r"data.content was 1 recordings \w+ and is 1 recordings \w+"):
        train(replace(given, data=make_data(tmp_path / "other", n_samples=3200)))
    changed = make_data(tmp_path / "changed")
    recording = next(changed.rglob("*.wav"))
    content = recording.read_bytes()
    recording.write_bytes(content[:2000] + b"\1\1" + content[2002:])
    with pytest.raises(CheckpointError, match=r"data.content was"):
        train(replace(given, data=changed))
    (tmp_path / "moved/metadata/validation/validation.tsv").write_text("filename\nclip.flac\n")
    with pytest.raises(CheckpointError, match=r"data.content was"):
        train(replace(given, data=tmp_path / "moved"))
    detector.write_bytes(b"others")
    with pytest.raises(CheckpointError, match=r"detector.content was"):
        train(replace(given, data=tmp_path / "moved"))


def test_a_detector_saved_once_more_is_the_same(tmp_path):
    """safetensors writes the entries of its metadata in another order from save to save."""
    path, seen, found = tmp_path / "detector.safetensors", set(), set()
    for _ in range(40):
        checkpoint.write(path, "detector", {"weight": torch.ones(2)}, {"labels": ["Cat"]})
        seen.add(path.read_bytes())
        found.add(identified({"detector": path})["detector"]["content"])
    assert len(seen) == 2 and len(found) == 1
    checkpoint.write(path, "detector", {"weight": torch.zeros(2)}, {"labels": ["Cat"]})
    assert identified({"detector": path})["detector"]["content"] not in found


def test_another_number_of_processes_is_named_with_what_it_changes(tmp_path):
    train(config(tmp_path))
    with pytest.raises(CheckpointError, match=r"devices was 1 and is 2; each process draws its own clips"):
        train(config(tmp_path, devices=2, resume=True))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_says_so_and_has_a_status(tmp_path, number, status, capsys):
    class Stopped(Model):
        def training_step(self, batch, batch_idx):
            if self.global_step == 3:
                os.kill(os.getpid(), number)
            return super().training_step(batch, batch_idx)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with SIGINT ignored
    try:
        with pytest.raises(SystemExit) as exit_:
            cli.run(lambda _: train(config(tmp_path), Stopped()), stopped=cli.RESUMABLE)
        assert signal.getsignal(signal.SIGTERM) == handlers[signal.SIGTERM]
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert exit_.value.code == status
    assert "stopped; --resume continues from the last checkpoint" in capsys.readouterr().err
    model = Model()
    train(config(tmp_path, resume=True), model)
    assert float(model.weight) == weight_after(4)
