"""The commands as a user meets them: on the built-in corpus, on real recordings, and with mistakes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from task_aware import (
    Separator,
    ablation,
    completion,
    evaluate,
    import_dcase20,
    infer,
    info,
    listen,
    load_detector,
    mix,
    plot,
    train,
    train_sed,
    train_sep,
    verify_data,
)
from task_aware.base import cli
from task_aware.base.errors import CheckpointError, DataError
from task_aware.data.mixing_config import MixingConfig
from task_aware.inference.live import LiveDetector
from task_aware.models.opening import BUILTIN_DETECTOR
from task_aware.scoring.psds import why_no_psds
from task_aware.study.systems import TERMS
from task_aware.training.config import TrainConfig
from task_aware.training.setup import batch_sizes


def parse(*arguments: str) -> TrainConfig:
    return cli.parse(TrainConfig, "", arguments, base="builtin")


@pytest.fixture
def cache(tiny_corpus, monkeypatch):
    """The commands' built-in corpus is the one already made."""
    monkeypatch.setattr("task_aware.synthesis.cache.builtin_corpus", lambda **_: tiny_corpus)
    monkeypatch.setattr("task_aware.synthesis.builtin_corpus", lambda **_: tiny_corpus)


def previews(run_: Path) -> list[str]:
    """Names of the pictures that TensorBoard has of a run."""
    logs = EventAccumulator(str(run_ / "logs/part_0"))
    logs.Reload()
    return logs.Tags()["images"]


def test_a_fast_run_trains_scores_and_draws(cache, tmp_path, capsys):
    train.main(["--fast-dev-run", f"--out={tmp_path}", "--accelerator=cpu"])
    printed = capsys.readouterr().out
    assert "detector alone" in printed and "with separation" in printed
    assert "have not separated yet" in printed  # six steps never have
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for name in ("detector_only", "separated"):
        assert 0 <= metrics[name]["event_f1_macro"] <= 1
    assert metrics["steps_per_second"] > 0 and 0 <= metrics["data_wait_share"] <= 1
    assert metrics["peak_memory_mib"] > 0 and metrics["separation"].keys() == {"sdr_gain"}
    for name in (
        "separator.safetensors",
        "separation.png",
        "training.png",
        "detector_only.tsv",
        "separated.tsv",
    ):
        assert (tmp_path / name).stat().st_size > 0
    assert (tmp_path / "checkpoints" / "last.safetensors").is_file()
    assert "clip/separation" in previews(tmp_path)

    evaluate.main([str(tmp_path / "separator.safetensors"), "--accelerator=cpu"])
    scored = json.loads((tmp_path / "evaluation-validation" / "metrics.json").read_text())
    assert scored["separated"]["event_f1_macro"] == metrics["separated"]["event_f1_macro"]
    printed = capsys.readouterr().out
    if missing := why_no_psds():
        assert missing in printed and "psds1" not in scored["separated"]
    else:
        for name in ("detector_only", "separated"):
            assert 0 <= scored[name]["psds1"] <= 1 and 0 <= scored[name]["psds2"] <= 1
            assert f"{100 * scored[name]['psds2']:.1f}" in printed.split("PSDS 2")[1].splitlines()[0]


def test_gradients_are_clipped_in_bfloat16_too(cache, tmp_path, short_steps):
    """With the fused optimiser, Lightning's own clipping ends such a run."""
    options = ["--precision=bf16-mixed", "--optimiser.gradient_clip=0.1", "--fast-dev-run", "--accelerator=cpu"]
    train.main([*options, *short_steps, f"--out={tmp_path}"])
    assert (tmp_path / "separator.safetensors").is_file() and previews(tmp_path) == []


def test_an_evaluation_replaces_another_as_a_whole_and_no_run(cache, tmp_path):
    out, run_ = tmp_path / "scores", tmp_path / "run"
    for folder in (out, run_):
        folder.mkdir()
        (folder / "separated.tsv").write_text("of another model")
    (run_ / "options.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is the folder of a run, whose scores would be replaced"):
        evaluate.main([str(BUILTIN_DETECTOR), "--accelerator=cpu", f"--out={run_}"])
    assert (run_ / "separated.tsv").exists() and not (run_ / "metrics.json").exists()
    evaluate.main([str(BUILTIN_DETECTOR), "--accelerator=cpu", f"--out={out}"])
    assert {path.name for path in out.iterdir()} == {"metrics.json", "detector_only.tsv", "errors.tsv"}
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["checkpoint"], metrics["split"]) == (str(BUILTIN_DETECTOR), "validation")


def test_other_data_without_a_detector_trains_one_first(tiny_corpus, tmp_path, short_steps):
    train.main([f"--data={tiny_corpus}", "--fast-dev-run", f"--out={tmp_path}", "--accelerator=cpu", *short_steps])
    assert (tmp_path / "detector" / "detector.safetensors").is_file()


def test_a_recipe_with_a_detector_of_its_own_trains_that_first(cache, tmp_path, caplog, short_steps):
    """The detector that comes along is not causal, so it is not taken."""
    caplog.set_level("INFO")
    command = ["--config=causal_builtin", "--fast-dev-run", f"--out={tmp_path}", "--accelerator=cpu"]
    train.main([*command, *short_steps])
    assert "training one on the built-in corpus first (6 steps)" in caplog.text
    system = Separator.from_checkpoint(tmp_path / "separator.safetensors")
    assert system.mask_network.config.causal
    assert system.detector.config == load_detector(tmp_path / "detector" / "detector.safetensors").config
    assert LiveDetector(system).delay_seconds == pytest.approx((35 * 320 + 512 + 1) / 16000)


def test_real_recordings_with_absent_classes(minidesed, tmp_path, caplog, short_steps):
    caplog.set_level("INFO")
    train.main(
        [
            f"--data={minidesed}",
            f"--rirs={minidesed / 'rirs'}",
            f"--detector={BUILTIN_DETECTOR}",
            "--fast-dev-run",
            f"--out={tmp_path}",
            "--accelerator=cpu",
            *short_steps,
        ]
    )
    assert "Blender" in caplog.text  # named as absent
    assert "Speech" in json.loads((tmp_path / "metrics.json").read_text())["separated"]["classes_averaged"]


def test_the_detector_s_training_is_reproducible(cache, tmp_path):
    options = ["--max-steps=3", "--accelerator=cpu", "--fast-dev-run", "--training.batch.strong=2"]
    for name in ("a", "b"):
        train_sed.main([*options, f"--out={tmp_path / name}"])
    a, b = (load_detector(tmp_path / name / "detector.safetensors").state_dict() for name in ("a", "b"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_recipes_by_name():
    builtin, causal = parse(), parse("--config=causal_builtin")
    assert builtin.mixing.n_events == (1, 4) and builtin.mixing.reference_db is None
    assert builtin.separator.sources == "classes" and builtin.separator.merging_rule == "own_average"
    for name in ("mixing", "losses", "optimiser", "batch"):
        assert getattr(causal, name) == getattr(builtin, name)
    assert parse("--config=desed").mixing == replace(MixingConfig.balanced(), max_rir_seconds=1.0)
    separation = parse("--config=separation")
    assert separation.mixing == MixingConfig.balanced()
    assert batch_sizes(separation, separation.optimiser.max_steps) == (8, 0, 0)
    paper = parse("--config", "builtin", "--config", "paper")
    assert paper.mixing == MixingConfig.paper()
    assert paper.losses.domain == "linear" and paper.losses.mask_floor == 0
    assert paper.optimiser.separation_steps == 0
    assert paper.separator.preset == "small" and paper.separator.sources == "free" and paper.losses.own == 0
    desed = parse("--config=desed", "--config=paper")
    assert desed.separator.preset == "conv_tasnet_3m" and desed.separator.merge == "max"
    assert desed.optimiser.warmup_steps == 10 * desed.optimiser.steps_per_epoch
    assert desed.optimiser.learning_rate == 1e-3 and desed.optimiser.separation_steps == 0
    assert (desed.batch.strong, desed.batch.weak, desed.batch.unlabelled) == (12, 12, 8)
    assert desed.mixing.n_events == (1, 5)


def test_ablation_rows_are_four_weights():
    config = parse("--losses.deep_feature=0", "--losses.weak=0", "--losses.teacher=0")
    assert batch_sizes(config, config.optimiser.max_steps) == (config.batch.strong, 0, 0)
    config = parse("--losses.teacher=0")
    assert batch_sizes(config, config.optimiser.max_steps)[2] == 0


def test_length_in_epochs_or_steps():
    assert parse("--epochs=2", "--optimiser.steps_per_epoch=7").optimiser.max_steps == 14
    assert parse("--max-steps=5").optimiser.max_steps == 5
    with pytest.raises(ValueError, match="max_steps is 0 and steps_per_epoch is 100; both must be at least 1"):
        parse("--max-steps=0")


def test_a_packaged_config_is_found_by_name_and_an_unknown_one_is_not(capsys):
    with pytest.raises(SystemExit):
        parse("--config=no_such_config")
    assert "no_such_config" in capsys.readouterr().err


COMMANDS = [
    train,
    train_sed,
    train_sep,
    evaluate,
    infer,
    listen,
    mix,
    ablation,
    plot,
    import_dcase20,
    verify_data,
    completion,
    info,
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        command.main(["--help"])
    assert exit_.value.code == 0
    assert "usage: python -m task_aware." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "arguments", "option", "default"),
    [
        (train, [], "--separator.sources", "classes"),
        (train, ["--config", "builtin", "--config=paper"], "--separator.sources", "free"),
        (train, [], "--mixing.reference_db", "null"),
        (mix, [], "--mixing.n_events", "[1, 4]"),
        (mix, ["--config=paper"], "--mixing.n_events", "[1, 5]"),
        (train_sed, [], "--training.crnn.initialisation", "unit"),
    ],
)
def test_help_shows_what_a_run_would_take(command, arguments, option, default, capsys):
    """The defaults are those of the recipes, not of the classes that the recipes change."""
    with pytest.raises(SystemExit):
        command.main([*arguments, "--help"])
    _, _, after = " ".join(capsys.readouterr().out.split()).partition(f" {option} ")
    assert after.partition("default: ")[2].partition(")")[0] == default


def test_help_leaves_out_what_says_nothing(capsys):
    for command in (infer, train, ablation):
        with pytest.raises(SystemExit):
            command.main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "<class" not in printed and "Literal[" not in printed.replace("Optional[Literal[", "")
    assert "--scores also write frame probabilities, in sed_scores_eval's format --plot" in printed
    assert "default: the detector's own (type: int | null)" in printed


def test_mistakes_are_one_sentence(tmp_path, tiny_corpus):
    with pytest.raises(DataError, match="is not a folder"):
        train.main([f"--data={tmp_path / 'absent'}", f"--detector={BUILTIN_DETECTOR}", "--fast-dev-run"])
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        train.main([f"--detector={tmp_path / 'absent.safetensors'}"])
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(BUILTIN_DETECTOR.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        train.main([f"--detector={cut}"])
    with pytest.raises(ValueError, match="at least one above 0"):
        train.main([f"--losses.{name}=0" for name in TERMS])
    with pytest.raises(CheckpointError, match="to resume; start without --resume"):
        train.main(
            [
                "--resume",
                f"--out={tmp_path / 'none'}",
                f"--data={tiny_corpus}",
                "--detector",
                str(BUILTIN_DETECTOR),
            ]
        )
    with pytest.raises(
        ValueError, match="these steps would train nothing; give losses.mse a weight, or set both shares to 0"
    ):
        train.main(["--fast-dev-run", "--losses.mse=0", "--optimiser.anchor_share=0.4"])


def test_an_empty_split_is_one_sentence(tiny_corpus, tmp_path):
    root = tmp_path / "corpus"
    shutil.copytree(tiny_corpus, root)
    (root / "metadata/validation/validation.tsv").write_text("filename\tonset\toffset\tevent_label\n")
    with pytest.raises(DataError, match=r"validation.tsv"):
        train.main([f"--data={root}", f"--detector={BUILTIN_DETECTOR}", "--fast-dev-run"])


def test_run_turns_errors_into_a_line_and_a_status(capsys):
    def fail(_):
        raise DataError("the disk is full; empty it")

    with pytest.raises(SystemExit) as exit_:
        cli.run(fail)
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: the disk is full; empty it\n"
