"""Files that appear whole or not at all."""

import os
import subprocess
import sys
import time

import pytest

from task_aware.base.files import _forget_claims, claim, replacing


def test_a_file_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]


def test_an_error_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="no space"), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError("no space left on device")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_two_processes_write_one_file_and_the_last_one_stays(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    with replacing(path) as first:
        first.write_text("first")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with replacing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_written_by_one_command_at_a_time(tmp_path):
    def other(shared: bool) -> subprocess.CompletedProcess[str]:
        code = "import sys; from pathlib import Path; from task_aware.base.files import claim; "
        code += f"claim(Path(sys.argv[1]), shared={shared})"
        return subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True)

    claim(tmp_path / "out", shared=True)
    claim(tmp_path / "out", shared=True)  # a second time by the same command
    assert other(shared=True).returncode == 0
    refused = other(shared=False)
    assert refused.returncode == 1 and "another command is writing to" in refused.stderr
    child = os.fork()
    if child == 0:  # a worker that outlives the command
        time.sleep(1)
        os._exit(0)
    _forget_claims()
    assert other(shared=False).returncode == 0
    os.waitpid(child, 0)
    assert list((tmp_path / "out").iterdir()) == []
