"""How commands end: what they say, and their exit status."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

import task_aware
from task_aware.base import cli


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
