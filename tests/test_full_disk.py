"""Where nothing more can be written, a command ends in one sentence and leaves no temporary file."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from task_aware.base import checkpoint, cli
from task_aware.base.errors import DataError, OutputError
from task_aware.base.files import replacing
from task_aware.data.audio import write_audio
from task_aware.data.recordings import cache_folder
from task_aware.inference.outputs import SourceFiles

#: The largest file that a process of these tests may write, in bytes.
LIMIT = 20_000


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))


def _hidden(folder: Path) -> list[Path]:
    return list(folder.rglob(".*"))


def test_a_command_whose_output_cannot_grow_ends_in_a_sentence(tmp_path: Path, tiny_corpus: Path) -> None:
    out = tmp_path / "out"
    clips = str(tiny_corpus / "audio" / "validation")
    command = [sys.executable, "-m", "task_aware.infer", "--demo", clips, "--audio", "--out", str(out)]
    result = subprocess.run(command, preexec_fn=_limited, capture_output=True, text=True)
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 2, result.stderr
    assert last.startswith(f"error: {out}")
    assert "cannot be written" in last and "free some space, or choose another folder" in last
    assert _hidden(out) == []


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        with pytest.raises(OutputError, match=r"x\.safetensors cannot be written"):
            checkpoint.write(tmp_path / "x.safetensors", "detector", {"weight": torch.zeros(LIMIT)}, {})
        with pytest.raises(OutputError, match=r"x\.wav cannot be written"):
            write_audio(tmp_path / "x.wav", np.zeros(LIMIT), 16000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_sources_that_cannot_be_written_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = SourceFiles({"Dog": tmp_path / "a.Dog.flac", "rest": tmp_path / "a.rest.flac"}, 16000)
    files.write(np.zeros((2, 100)))

    def fail(*_: object) -> None:
        raise soundfile.LibsndfileError(2, "")

    monkeypatch.setattr(soundfile.SoundFile, "write", fail)
    with pytest.raises(OutputError, match="cannot be written"):
        files.close(["rest"])  # to which the dog is added
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "below" / "a.txt"
    with pytest.raises(OutputError, match=r"a\.txt cannot be written \(Not a directory\)"), replacing(path):
        pass


def test_an_error_of_another_file_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="input"), replacing(tmp_path / "output"):
        (tmp_path / "input" / "missing").read_bytes()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device; free some space\n"),
        (PermissionError(errno.EACCES, "Permission denied", "a.wav"), "error: a.wav: Permission denied\n"),
        (FileNotFoundError("no recordings in x; check the path"), "error: no recordings in x; check the path\n"),
    ],
)
def test_errors_of_the_system_are_sentences(capsys: pytest.CaptureFixture[str], error: OSError, sentence: str) -> None:
    def main(_: object) -> None:
        raise error

    with pytest.raises(SystemExit, match="2"):
        cli.run(main)
    assert capsys.readouterr().err == sentence


def test_a_user_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TASK_AWARE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(DataError, match="set TASK_AWARE_CACHE to a writable folder"):
        cache_folder()
