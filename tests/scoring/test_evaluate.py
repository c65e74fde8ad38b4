"""`python -m task_aware.evaluate`: what can be scored is scored and written, whatever else fails."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from data.recordings import burst, write, write_table

from task_aware import evaluate
from task_aware.base.errors import DataError
from task_aware.data.desed import read_events, read_split
from task_aware.scoring import evaluation
from task_aware.scoring.psds import why_no_psds

needs_psds = pytest.mark.skipif(why_no_psds() is not None, reason=why_no_psds() or "")

HEADER = "filename\tonset\toffset\tevent_label"


@pytest.fixture
def corpus(tmp_path) -> Callable[..., Path]:
    """Writes three clips with the rows of a validation table."""

    def make(*rows: str) -> Path:
        root = tmp_path / "corpus"
        for k in range(3):
            write(root / f"audio/validation/{k}.wav", burst(3.0, lead=1.0, seed=k))
        write_table(root / "metadata/validation/validation.tsv", HEADER, *rows)
        return root

    return make


@pytest.fixture
def score(small_detector, tmp_path) -> Callable[[Path], dict]:
    """Runs the command; returns `metrics.json`."""
    small_detector.save(tmp_path / "detector.safetensors")

    def run(root: Path, status: int = 0) -> dict:
        arguments = [tmp_path / "detector.safetensors", f"--data={root}", f"--out={tmp_path}/out", "--accelerator=cpu"]
        try:
            evaluate.main(list(map(str, arguments)))
        except SystemExit as end:
            assert end.code == status
        else:
            assert status == 0
        return json.loads((tmp_path / "out/metrics.json").read_text())

    return run


def test_false_alarms_are_counted_in_files_without_any_event(corpus, score, tmp_path, capsys):
    metrics = score(corpus("0.wav\t\t\t", "1.wav\t\t\t", "2.wav\t\t\t"))
    n_found = sum(map(len, read_events(tmp_path / "out/detector_only.tsv").values()))
    assert metrics["detector_only"]["false_alarms"] == n_found > 0
    assert metrics["detector_only"]["event_f1_macro"] is None  # no event could have been found
    printed = capsys.readouterr().out
    assert printed.split("false alarms")[1].split()[0] == str(n_found)
    if not why_no_psds():
        assert "PSDS is left out: the reference has no event" in printed


@needs_psds
def test_a_metric_that_fails_costs_no_other(corpus, score, monkeypatch, capsys):
    psds = evaluation.psds

    def failing(*arguments, scenarios, **options):
        assert scenarios != ("psds2",), "no reason\nat all"
        return psds(*arguments, scenarios=scenarios, **options)

    monkeypatch.setattr(evaluation, "psds", failing)
    metrics = score(corpus("0.wav\t1\t3\tDog", "1.wav\t1\t3\tCat", "2.wav\t\t\t"))
    assert "psds1" in metrics["detector_only"] and "psds2" not in metrics["detector_only"]
    printed = capsys.readouterr().out
    assert "PSDS 1" in printed and "PSDS 2" not in printed
    assert "psds2 of detector_only is left out: sed_scores_eval fails (AssertionError: no reason)" in printed


def test_what_is_computed_is_written_before_psds_begins(corpus, score, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "score_psds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        score(corpus("0.wav\t1\t3\tDog", "1.wav\t1\t3\tCat", "2.wav\t\t\t"))
    assert "event_f1_macro" in json.loads((tmp_path / "out/metrics.json").read_text())["detector_only"]
    assert set(read_events(tmp_path / "out/detector_only.tsv")) == {"0.wav", "1.wav", "2.wav"}


def test_detections_are_written_before_they_are_scored(corpus, score, monkeypatch, tmp_path):
    def failing(*_):
        raise RuntimeError

    monkeypatch.setattr(evaluation, "score", failing)
    with pytest.raises(RuntimeError):
        score(corpus("0.wav\t1\t3\tDog", "1.wav\t1\t3\tCat", "2.wav\t\t\t"))
    assert set(read_events(tmp_path / "out/detector_only.tsv")) == {"0.wav", "1.wav", "2.wav"}


def test_a_clip_that_cannot_be_used_is_named_and_the_others_scored(corpus, score, tmp_path, capsys):
    rows = "0.wav\t1\t3\tDog", "1.wav\t1\t3\tCat", "2.wav\t1\t3\tCat"
    both = score(corpus(*rows[:2]))
    root = corpus(*rows, "loud.wav\t1\t2\tDog", "short.wav\t\t\t", "gone.wav\t0\t400\tDog")
    (root / "audio/validation/2.wav").write_bytes(b"RIFF")
    soundfile.write(root / "audio/validation/loud.wav", np.full(16000, 3e38, np.float32), 16000, subtype="FLOAT")
    write(root / "audio/validation/short.wav", burst(0.01))
    metrics = score(root, status=1)
    assert metrics["detector_only"] == both["detector_only"]
    assert metrics["left_out"] == ["gone.wav", "2.wav", "loud.wav", "short.wav"]
    with (tmp_path / "out/errors.tsv").open(newline="") as file:
        errors = {row["filename"]: row["error"] for row in csv.DictReader(file, delimiter="\t")}
    assert set(errors) == {"2.wav", "loud.wav", "short.wav"} and "reaches 3e+38" in errors["loud.wav"]
    assert "3 of the clips could not be used" in capsys.readouterr().err
    for name in ("0.wav", "1.wav"):
        (root / "audio/validation" / name).write_bytes(b"RIFF")
    with pytest.raises(DataError, match="none of the clips in .*validation.tsv can be used"):
        score(root)


def test_scoring_leaves_the_model_as_it_is(corpus, small_detector):
    split = read_split(corpus("0.wav\t1\t3\tDog"), "validation")
    small_detector.train()
    list(evaluation.hear_split(small_detector, split, device=torch.device("cpu"), progress=False))
    assert small_detector.training
