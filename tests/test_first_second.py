"""Help, mistakes and the first import answer at once: what they import is counted, not how long they take."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from task_aware.__main__ import commands
from task_aware.ops import _dispatch

#: What a help text has no use for; importing any of these takes longer than all the rest.
HEAVY = ("torch", "lightning", "scipy", "matplotlib", "pandas", "sed_eval", "torchmetrics", "soundfile", "numpy")

#: What opening a model has no use for.
NOT_FOR_A_MODEL = ("torch._dynamo", "lightning", "scipy", "matplotlib", "pandas", "sed_eval", "torchmetrics")

MISTAKES = [
    ["no_such_command"],
    [],
    ["train", "--no-such-option"],
    ["train", "--config=no_such_recipe"],
    ["train", "--max-steps=0"],
    ["train", "--losses.mse=much"],
    ["train", "--separator.n_sources=40"],
    ["train_sed", "--seed=-1"],
    ["train_sep", "--denoiser.mixtures=0"],
    ["train_sep", "--denoiser.preset=huge"],
    ["train_sed", "--training.crnn.causal=perhaps"],
    ["infer", "model.safetensors", "a.wav"],
    ["infer", "--out=out", "--demo", "a.wav", "--threshold=2"],
    ["infer", "--out=out", "a.wav"],
    ["evaluate"],
    ["ablation", "--out=out", "--rows=none"],
    ["mix", "--out=out", "--number=0"],
    ["mix", "--out=out", "--mixing.n_events=[1, two]"],
    ["corpus", "--size=none"],
    ["import_clips", "folder", "--out=out", "--gap=100"],
    ["verify_data", "folder", "--channel=-1"],
    ["info", "--all"],
]

#: Runs `task-aware` with each of the lists of arguments; prints what that imported, and the exit statuses.
RUN = """
import contextlib, io, json, sys
from task_aware import __main__ as program
answers = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["task-aware", *arguments]
    before, status = set(sys.modules), 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            program.main()
        except SystemExit as exit_:
            status = exit_.code or 0
    answers.append([sorted(set(sys.modules) - before), status, said.getvalue()])
print(json.dumps(answers))
"""


def python(code: str, *arguments: str) -> str:
    answer = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def among(modules: list[str], packages: tuple[str, ...]) -> set[str]:
    """The packages of which one of the modules is, or is below."""
    return {package for package in packages if any(f"{name}.".startswith(f"{package}.") for name in modules)}


def imported(cases: list[list[str]], status: int) -> dict[str, set[str]]:
    """What each of the command lines imports of what is heavy; they must end with the exit status `status`."""
    found = {}
    for case, (modules, ended, said) in zip(cases, json.loads(python(RUN, json.dumps(cases))), strict=True):
        assert ended == status, f"{case} ended with {ended}: {said}"
        found[" ".join(case)] = among(modules, HEAVY)
    return {case: packages for case, packages in found.items() if packages}


def test_help_imports_nothing_heavy():
    cases = [["--help"], ["--version"], *([name, "--help"] for name in commands())]
    assert imported(cases, 0) == {}


def test_mistakes_import_nothing_heavy():
    assert imported(MISTAKES, 2) == {}


def test_completion_imports_nothing_heavy():
    pytest.importorskip("shtab")
    assert imported([["completion", "bash"]], 0) == {}


def test_info_begins_before_it_imports_torch():
    code = "import sys; from task_aware.info import rows; print(next(rows()), 'torch' in sys.modules)"
    assert python(code).startswith("('task_aware', '") and python(code).endswith(") False\n")


def test_a_model_is_opened_without_what_only_some_need():
    code = "import json, sys; from task_aware import {}; print(json.dumps(sorted(sys.modules)))"
    for names in ("Predictor, Separator, load_detector, ops", "data"):
        modules = json.loads(python(code.format(names)))
        assert among(modules, NOT_FOR_A_MODEL) == set(), names


def test_a_recording_is_heard_without_what_only_some_need(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((16000, 2)), 16000)
    code = (
        "import json, sys; from task_aware.infer import main; main(sys.argv[1:])\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    printed = python(code, "--demo", str(tmp_path / "a.wav"), f"--out={tmp_path / 'out'}", "--device=cpu")
    assert among(json.loads(printed.splitlines()[-1]), NOT_FOR_A_MODEL) == set()


def test_names_that_are_imported_on_first_use_are_listed():
    """`dir`, `import *` and completion in an interpreter show them all."""
    code = "from {0} import *; import {0}; print({0}.__all__ == dir({0}), all(map(globals().get, {0}.__all__)))"
    for package in ("task_aware", "task_aware.data", "task_aware.synthesis"):
        assert python(code.format(package)) == "True True\n"


def test_constants_of_graphs_are_marked_as_torch_marks_them():
    def ours() -> None: ...

    def theirs() -> None: ...

    _dispatch.constant_in_graphs(ours)
    torch.compiler.assume_constant_result(theirs)
    assert vars(ours) == vars(theirs) != {}
