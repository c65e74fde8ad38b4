"""The ablation command: every row runs, a stopped one goes on, a failed one is named and stops no other."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from task_aware import ablation, load_detector, overlay
from task_aware.base import cli
from task_aware.base.errors import CheckpointError, DataError
from task_aware.models.opening import BUILTIN_DETECTOR
from task_aware.study import jobs as running
from task_aware.study.plan import make_jobs, shared_detector
from task_aware.study.results import check_same
from task_aware.study.systems import ROWS, RUNS, TABLES, TERMS, loss_options
from task_aware.training.config import LossConfig, TrainConfig, TrainSepConfig

SMALL = """
batch: {strong: 2, weak: 1, unlabelled: 1, strong_seconds: 2.0, real_seconds: 2.0}
optimiser: {separation_strong: 2, steps_per_epoch: 2}
mixing: {reverb: false, n_events: [1, 2]}
separator: {n_sources: 2}
preview: false
"""


def arguments(corpus: Path, out: Path, *more: str) -> list[str]:
    config = out.parent / "small.yaml"
    config.write_text(SMALL)
    return [
        f"--data={corpus}",
        f"--out={out}",
        f"--detector={BUILTIN_DETECTOR}",
        "--config=builtin",
        f"--config={config}",
        "--accelerator=cpu",
        "--fast-dev-run",
        *more,
    ]


def test_it_runs_goes_on_and_names_what_failed(tiny_corpus, tmp_path, capsys):
    out, pairs = tmp_path / "runs", tmp_path / "pairs"
    overlay.main([f"--data={tiny_corpus}", f"--out={pairs}"])
    command = arguments(tiny_corpus, out, "--rows", "weak", "sep_sed_no_average", "--test", str(pairs))
    ablation.main(command)
    printed = capsys.readouterr().out
    assert printed.count("min\n") == 6 and "SEP+SED, no averaging" in printed and "+weak" in printed
    assert "have not separated yet in weak, seed 0: their scores" in printed  # two steps never have
    with (out / "tables.csv").open() as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["detector_alone", "sep_sed_no_average", "weak"]
    for name, row in rows.items():
        metrics = json.loads((out / ROWS[name].run / "seed0" / "metrics.json").read_text())
        assert float(row["event_f1_macro"]) == pytest.approx(metrics[ROWS[name].system]["event_f1_macro"], abs=1e-6)
        assert float(row["low"]) <= float(row["event_f1_macro"]) <= float(row["high"])
        assert float(row["real_time_factor"]) > 0
    detector = sum(weight.numel() for weight in load_detector(BUILTIN_DETECTOR).parameters())
    assert int(rows["weak"]["parameters"]) > int(rows["detector_alone"]["parameters"]) == detector
    assert imread(out / "tables.png").shape[1] == 1404
    with (out / "on_pairs/tables.csv").open() as file:
        on_pairs = {row["row"]: row for row in csv.DictReader(file)}
    assert on_pairs.keys() == rows.keys() and on_pairs["weak"]["parameters"] == rows["weak"]["parameters"]
    paired = json.loads((out / "weak/seed0/on_pairs/metrics.json").read_text())
    assert float(on_pairs["weak"]["event_f1_macro"]) == pytest.approx(paired["separated"]["event_f1_macro"], abs=1e-6)
    assert "--mixing={" in (out / "sep_sed/seed0/log.txt").read_text()

    # killed after its training, and another one that cannot go on
    weak, denoiser = out / "weak/seed0", out / "sep_sed/seed0"
    scored = json.loads((denoiser / "metrics.json").read_text())
    (denoiser / "metrics.json").unlink()
    (weak / "metrics.json").unlink()
    (weak / "checkpoints/last.safetensors").write_bytes(b"cut off")
    with pytest.raises(SystemExit) as exit_:
        ablation.main(command)
    assert exit_.value.code == 1
    printed = capsys.readouterr()
    assert printed.out.count("already done") == 4 and "SEP+SED" in printed.out
    validation, overlaid, _ = printed.out.split("written to")
    assert "| +weak" not in validation and "| +weak" in overlaid  # was scored before
    assert "weak, seed 0: exit status 2: error:" in printed.err and "not a complete safetensors file" in printed.err
    assert "--resume" in (denoiser / "log.txt").read_text()
    again = json.loads((denoiser / "metrics.json").read_text())
    assert {"detector_only", "source_only", "separated"} < set(again)
    assert again["separated"] == scored["separated"] and again["source_only"] == scored["source_only"]

    with pytest.raises(CheckpointError, match="recipe was default and is paper"):
        ablation.main([*command, "--recipe=paper"])
    with pytest.raises(ValueError, match="their names must differ"):
        ablation.main([*command, str(tmp_path / "elsewhere/pairs")])


def test_a_study_goes_on_with_data_that_have_moved_and_not_with_others(tmp_path):
    def data(name: str, rows: str) -> Path:
        table = tmp_path / name / "metadata" / "validation.tsv"
        table.parent.mkdir(parents=True)
        table.write_text(rows)
        return tmp_path / name

    recipe = tmp_path / "small.yaml"
    recipe.write_text(SMALL)

    def check(folder: Path, max_steps: int = 5) -> None:
        given = [f"--out={tmp_path}", f"--data={folder}", f"--config={recipe}", f"--max-steps={max_steps}"]
        check_same(tmp_path / "ablation.json", ablation.make_parser().parse_args(given))

    check(data("data", "filename"))
    check((tmp_path / "data").rename(tmp_path / "moved"))
    with pytest.raises(CheckpointError, match="max_steps was 5 and is 6"):  # finished runs would stay as they are
        check(tmp_path / "moved", 6)
    with pytest.raises(CheckpointError, match="data.content was"):
        check(data("other", "filename\na.wav"))
    recipe.write_text(SMALL + "seed: 1")
    with pytest.raises(CheckpointError, match="config.content was"):
        check(tmp_path / "moved")


def test_a_process_that_dies_at_once_is_a_failed_run(tmp_path, monkeypatch):
    class Killed:
        exitcode = -9

        def __init__(self, **_: object) -> None: ...
        def start(self) -> None: ...
        def join(self) -> None: ...

    monkeypatch.setattr(running.PROCESSES, "Process", Killed)
    job = running.Job("weak, seed 0", tmp_path / "weak", "train", ())
    assert running.run_all([job]) == [f"weak, seed 0: exit status -9: no output (see {tmp_path / 'weak' / 'log.txt'})"]


def test_rows_keep_the_weights_of_the_config():
    config = LossConfig(mse=20, frame=0)
    assert loss_options(("mse", "weak"), config) == [
        *("--losses.mse=20", "--losses.deep_feature=0", "--losses.weak=1", "--losses.teacher=0"),
        *("--losses.frame=0", "--losses.own=0"),
    ]
    assert set(TERMS) == {name for name, weight in vars(config).items() if isinstance(weight, float | int)} - {
        *("weak_present_rows_only", "mask_floor")
    }


def test_jobs_of_all_rows(tmp_path):
    options = ablation.make_parser().parse_args([f"--out={tmp_path}", "--seeds=2", "--max-steps=9", "--recipe=paper"])
    options.rows = list(ROWS)
    configs = ["--config=desed", "--config=paper"]
    jobs = list(make_jobs(options, configs, Path("detector.safetensors"), Path("corpus")))
    assert [job.run for job in jobs] == [*RUNS, *(name for name in RUNS if name != "detector_alone")]
    assert len({job.folder for job in jobs}) == len(jobs)
    by_title = {job.title: job for job in jobs}
    terms = {}
    for name in ("strong_mse", "weak", "weak_dfl", "proposed"):
        job = by_title[f"{name}, seed 1"]
        config = cli.parse(TrainConfig, "", job.arguments, base="builtin")
        assert config.seed == 1 and config.optimiser.max_steps == 9 and config.losses.domain == "linear"
        assert config.separator.sources == "free" and config.separator.merge == "max"
        terms[name] = {
            x for x in ("mse", "deep_feature", "weak", "teacher", "frame", "own") if getattr(config.losses, x)
        }
    assert terms == {
        "strong_mse": {"mse"},
        "weak": {"mse", "weak"},
        "weak_dfl": {"mse", "weak", "deep_feature"},
        "proposed": {"mse", "weak", "deep_feature", "teacher"},
    }
    denoiser = cli.parse(TrainSepConfig, "", by_title["sep_sed, seed 0"].arguments, base="denoiser_builtin")
    assert denoiser.mixing == config.mixing and denoiser.mixing.reference_db == 0  # the paper's levels for both
    assert denoiser.denoiser.max_steps == 9


def test_the_channel_reaches_every_run(tmp_path):
    options = ablation.make_parser().parse_args([f"--out={tmp_path}", "--seeds=1", "--channel=1", "--test", "other"])
    options.rows = list(ROWS)
    jobs = list(make_jobs(options, [], Path("detector.safetensors"), Path("corpus")))
    assert jobs and all("--channel=1" in job.arguments for job in jobs)


def test_tables_have_rows_and_rows_have_runs():
    assert {name for names in TABLES.values() for name in names} == set(ROWS)
    assert {row.run for row in ROWS.values()} == set(RUNS)


def test_a_detector_is_trained_once(tiny_corpus, tmp_path, monkeypatch):
    options = ablation.make_parser().parse_args([f"--out={tmp_path}", f"--data={tiny_corpus}"])
    started = []

    def run(job: running.Job) -> str:
        started.append(job)
        (job.folder).mkdir()
        (job.folder / "metrics.json").touch()
        return ""

    monkeypatch.setattr(running.Job, "work", run)
    first, second = (shared_detector(options, "detector_desed", []) for _ in range(2))
    assert first == second == tmp_path / "detector" / "detector.safetensors"
    assert [(job.command, job.arguments[0]) for job in started] == [("train_sed", "--config=detector_desed")]
    monkeypatch.setattr(running.Job, "work", lambda _: "exit status 2: error: no disk")
    (tmp_path / "detector" / "metrics.json").unlink()
    with pytest.raises(DataError, match="could not be trained: exit status 2"):
        shared_detector(options, "detector_desed", [])
