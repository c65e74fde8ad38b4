"""Files that appear whole or not at all."""

import os

import pytest

from task_aware.base.files import replacing


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
