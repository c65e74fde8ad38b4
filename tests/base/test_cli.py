"""How commands end: what they say, and their exit status."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path

import pytest

import task_aware
from task_aware.base import cli
from task_aware.base.errors import DataError
from task_aware.training.config import TrainConfig, TrainSepConfig


def status_of(main) -> object:
    with pytest.raises(SystemExit) as exit_:
        cli.run(main)
    return exit_.value.code


def test_a_command_that_cannot_be_resumed_does_not_speak_of_it(capsys):
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    assert status_of(interrupted) == 130
    assert capsys.readouterr().err == "stopped\n"
    for path in Path(task_aware.__file__).parent.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert ("stopped=cli.RESUMABLE" in source) == path.stem.startswith("train"), path.name


def test_sigterm_cleans_up_and_has_a_status_of_its_own(capsys):
    cleaned = []

    def terminated(_: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # another one does not stop this
            cleaned.append(True)

    handler = signal.getsignal(signal.SIGTERM)
    assert status_of(terminated) == 143
    assert cleaned and capsys.readouterr().err == "stopped\n"
    assert signal.getsignal(signal.SIGTERM) == handler


def print_help(_: object) -> None:
    print("usage")
    sys.exit(0)


@pytest.mark.parametrize("main", [lambda _: print("a row"), print_help])
def test_a_closed_pipe_ends_a_command_without_a_word(main, monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert status_of(main) == 128 + signal.SIGPIPE
        print("what the interpreter still has to write", file=stdout)
        stdout.flush()
    assert capsys.readouterr().err == ""


def test_a_warning_of_ours_is_a_sentence_without_lines_of_code(capsys):
    def warned(_: object) -> None:
        warnings.warn_explicit("there are no backgrounds", UserWarning, cli.__file__, 12)
        warnings.warn_explicit("old", DeprecationWarning, "/lib/other.py", 3)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        cli.run(warned)
    said = capsys.readouterr().err
    assert said == "warning: there are no backgrounds\n/lib/other.py:3: DeprecationWarning: old\n"


@pytest.mark.parametrize("content", [b"seed: [1", b"seed: \xff", b"- 1", b"a: 1: 2", b"[" * 5000, b"when: 2001-99-99"])
def test_a_recipe_that_cannot_be_read_is_one_sentence(tmp_path, content):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(DataError, match=r"mine.yaml (cannot be read as a recipe|holds no options)") as error:
        cli.packaged_configs(["--config", str(tmp_path / "mine.yaml")], "builtin")
    assert "\n" not in str(error.value)


def test_a_recipe_whose_name_no_file_can_have_is_left_to_the_parser():
    assert cli.packaged_configs(["--config", "a" * 300], "builtin") == ["--config", "a" * 300]


@pytest.mark.parametrize("given", [["--data", "DIR"], ["--seed=1", "--data=DIR"]])
def test_recordings_of_one_s_own_have_a_recipe_of_their_own(given):
    named = {"base": "builtin", "with_data": "recordings"}
    assert cli.parse(TrainConfig, "", given, **named).mixing.speed == (0.7, 1.4)
    assert cli.parse(TrainConfig, "", [], **named).mixing.speed == (1.0, 1.0)
    assert cli.parse(TrainConfig, "", ["--config", "desed", *given], **named).mixing.speed == (1.0, 1.0)


def test_the_baseline_on_recordings_trains_on_the_mixtures_of_the_separator():
    given = ["--data", "DIR"]
    baseline = cli.parse(TrainSepConfig, "", given, base="denoiser_builtin", with_data="denoiser_recordings")
    separator = cli.parse(TrainConfig, "", given, base="builtin", with_data="recordings")
    assert (baseline.mixing, baseline.detector_config) == (separator.mixing, separator.detector_config)
