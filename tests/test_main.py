"""`task-aware`: one command before all others."""

import importlib.util
import re
import shutil
import subprocess
import sys

import pytest

from task_aware import __main__ as dispatcher
from task_aware import completion
from task_aware.base.errors import TaskAwareError


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["task-aware", *arguments])
    try:
        dispatcher.main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def test_it_lists_the_commands_with_what_they_do(monkeypatch, capsys):
    assert run(monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    for name in ("train", "train_sed", "evaluate", "infer", "listen", "mix", "info", "corpus", "export"):
        assert f"\n  {name} " in printed
    assert re.search(r"\n  train +trains a separator through a frozen sound event detector\n", printed)


def test_every_command_is_a_module_that_can_be_run():
    for command in dispatcher.commands().values():
        source = importlib.util.find_spec(command.module).origin
        with open(source, encoding="utf-8") as file:
            assert "main" in file.read().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["seperate"], "there is no command 'seperate'; choose from "), ([], "no command given; choose from ")],
)
def test_a_command_that_is_not_there_is_one_sentence(monkeypatch, capsys, arguments, sentence):
    assert run(monkeypatch, *arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {sentence}") and printed.count("\n") == 1


def test_a_command_gets_its_own_arguments(monkeypatch, capsys):
    assert run(monkeypatch, "corpus", "--size=none") == 2
    assert "error: argument --size" in capsys.readouterr().err


#: Prints what bash would offer after each of its arguments.
OFFERED = """
. "$1"; shift
for line in "$@"; do
    COMP_WORDS=($line) COMP_TYPE=9; [[ $line == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=(); _shtab_task_aware task-aware "${COMP_WORDS[COMP_CWORD]}"
    echo "${COMPREPLY[*]}"
done
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_bash_completes_commands_options_and_choices(capsys, tmp_path):
    pytest.importorskip("shtab")
    completion.main(["bash"])
    (tmp_path / "script").write_text(capsys.readouterr().out)
    lines = ["task-aware ", "task-aware train --losses.d", "task-aware infer --merge ", "task-aware corpus --size t"]
    answer = subprocess.run(
        ["bash", "-c", OFFERED, "bash", tmp_path / "script", *lines], capture_output=True, text=True
    )
    names, weights, rules, sizes = answer.stdout.splitlines()
    assert names.split() == list(dispatcher.commands())
    assert weights.split() == ["--losses.deep_feature", "--losses.domain", "--losses.deep_feature_reduction"]
    assert (rules, sizes) == ("max average noisy_or mean own own_average", "tiny")


def test_completion_without_shtab_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(TaskAwareError, match=r"run `pip install '\.\[completion\]'`"):
        completion.main(["zsh"])


def test_as_a_program_with_the_command_s_exit_status(tmp_path):
    command = [sys.executable, "-m", "task_aware", "corpus", "--seed=-1", f"--out={tmp_path}"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (2, "error: seed must not be negative, got -1.\n")
