"""The README keeps what it promises: its length, its links, and every command and example in it runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from data.recordings import burst, write

from task_aware.models.opening import BUILTIN_DETECTOR, BUILTIN_SEPARATOR

CHECKOUT = Path(__file__).resolve().parents[1]
README = CHECKOUT / "README.md"
PAGES = [
    README,
    *sorted((CHECKOUT / "docs").glob("*.md")),
    CHECKOUT / "CONTRIBUTING.md",
    CHECKOUT / "findings/README.md",
]


class Block(NamedTuple):
    """A block of code, and what the comment before it says of who runs it: `ci: NAME` or `test: NAME`."""

    runner: str
    name: str
    language: str
    code: str


def blocks() -> list[Block]:
    pattern = r"(?:<!-- (ci|test): (\w+) -->\n)?```(\w+)\n(.*?)```"
    return [Block(*found) for found in re.findall(pattern, README.read_text(encoding="utf-8"), re.DOTALL)]


def block(name: str) -> str:
    return next(block.code for block in blocks() if block.name == name)


def run(command: str, *more: str, cwd: Path) -> str:
    """Runs a command of the README, with further options; the comment behind it is not part of it."""
    arguments = shlex.split(command, comments=True)
    assert arguments[:2] == ["python", "-m"]
    answer = subprocess.run([sys.executable, *arguments[1:], *more], cwd=cwd, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_it_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 170


def test_every_block_of_code_is_run_by_somebody():
    assert [block.code for block in blocks() if not block.runner] == []
    script = (CHECKOUT / ".ci/run").read_text(encoding="utf-8")
    for block_ in blocks():
        if block_.runner == "ci":
            assert f"readme_command {block_.name}" in script


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(CHECKOUT).as_posix())
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{page.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{page.name} links to {target}; {other.name} has no such heading"


def test_a_recording_is_analysed(tmp_path):
    write(tmp_path / "recording.wav", burst(3.0))
    run(block("infer"), "--device=cpu", cwd=tmp_path)
    assert (tmp_path / "results/events.tsv").is_file()
    assert (tmp_path / "results/audio/recording.rest.flac").is_file() and list(
        (tmp_path / "results/plots").glob("*.png")
    )


def test_one_s_own_recordings_are_trained_on(tiny_corpus, tmp_path, short_steps):
    (tmp_path / "SOURCE").symlink_to(tiny_corpus / "audio/train/soundbank/foreground")
    import_clips, train = block("own").splitlines()
    run(import_clips, cwd=tmp_path)
    printed = run(train, "--fast-dev-run", "--accelerator=cpu", *short_steps, cwd=tmp_path)
    assert "detector alone" in printed and (tmp_path / "runs/mine/separator.safetensors").is_file()


def test_the_examples_in_python_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/separator").mkdir(parents=True)
    (tmp_path / "runs/separator/separator.safetensors").symlink_to(BUILTIN_SEPARATOR)
    write(tmp_path / "recording.wav", burst(2.0))
    names = {
        "waveform": np.zeros(32000, dtype=np.float32),
        "estimates": torch.rand(2, 3, 128, 10),
        "targets": torch.rand(2, 3, 128, 10),
        "logits": torch.rand(2, 3, 128, 10),
        "mel": torch.rand(2, 128, 10),
        "mean": torch.zeros(128),
        "std": torch.ones(128),
        "rirs": torch.rand(2, 3, 100),
        "gains": torch.ones(2, 3),
        "background": torch.rand(2, 1000),
    }
    predictor, operators = (block_.code for block_ in blocks() if block_.language == "python")
    exec(predictor, names)
    assert names["sources"].shape[1] == 32000
    names |= {"sources": torch.rand(2, 3, 1000), "waveform": torch.rand(2, 16000)}
    exec(operators, names)
    assert names["loss"].shape == (2,) and names["mixed"].mixture.shape == (2, 1000)


def test_what_comes_along_is_there():
    assert BUILTIN_DETECTOR.is_file() and BUILTIN_SEPARATOR.is_file()
