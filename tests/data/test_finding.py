import os

from task_aware.data.finding import find_audio

from .recordings import burst, write


def names(folder) -> list[str]:
    return [path.as_posix() for path in find_audio(folder, folder)]


def test_finding_enters_links_and_skips_hidden_files(tmp_path):
    write(tmp_path / "far/b.WAV", burst(0.1))
    write(tmp_path / "bank/a.wav", burst(0.1))
    (tmp_path / "bank/._a.wav").write_text("macOS leaves these")
    (tmp_path / "bank/notes.txt").write_text("no audio")
    (tmp_path / "bank/linked").symlink_to(tmp_path / "far")
    assert names(tmp_path / "bank") == ["a.wav", "linked/b.WAV"]


def test_what_systems_leave_is_no_data(tmp_path):
    write(tmp_path / ".data/Dog/a.wav", burst(0.1))  # the folder that is asked for may be hidden
    for clutter in (".git", ".Trash-1000/files", "Dog/.ipynb_checkpoints", "__MACOSX", "$RECYCLE.BIN", "@eaDir"):
        write(tmp_path / ".data" / clutter / "b.wav", burst(0.1))
    assert names(tmp_path / ".data") == ["Dog/a.wav"]


def test_links_in_circles_end_and_count_nothing_twice(tmp_path):
    write(tmp_path / "data/Dog/a.wav", burst(0.1))
    write(tmp_path / "outside.wav", burst(0.1))
    for k in range(3):
        (tmp_path / f"data/A{k}").symlink_to(tmp_path / "data")
        (tmp_path / f"data/Dog/up{k}").symlink_to("..")
        (tmp_path / f"data/B{k}").symlink_to("Dog")
        (tmp_path / f"data/C{k}").symlink_to(tmp_path)
    assert names(tmp_path / "data") == ["Dog/a.wav"]


def test_only_regular_files_are_recordings(tmp_path):
    write(tmp_path / "a.wav", burst(0.1))
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "to_pipe.wav").symlink_to("pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    (tmp_path / "gone.wav").symlink_to("nowhere.wav")  # data that is missing: to be named, not left out
    assert names(tmp_path) == ["a.wav", "gone.wav"]
