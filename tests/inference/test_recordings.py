"""Which recordings a command line means, and names that never meet."""

import os

import pytest

from task_aware.base.errors import DataError
from task_aware.inference.recordings import find_recordings, shard


@pytest.fixture
def tree(tmp_path):
    for name in ("a.wav", "deep/b.FLAC", "deep/er/c.mp3", "d.ogg", "notes.doc", "._a.wav", "deep/list.csv"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "in"


def named(*arguments) -> dict[str, str]:
    return {found.name: found.stem for found in find_recordings([str(argument) for argument in arguments])}


def test_a_folder_is_searched_with_all_below(tree):
    assert named(tree) == {"a.wav": "a", "d.ogg": "d", "deep/b.FLAC": "deep/b", "deep/er/c.mp3": "deep/er/c"}


def test_a_linked_folder_is_entered(tree, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "there").symlink_to(tree / "deep")
    assert list(named(tmp_path / "links")) == ["there/b.FLAC", "there/er/c.mp3"]


def test_patterns_name_from_where_they_begin(tree):
    assert list(named(tree / "deep" / "**" / "*.mp3")) == ["er/c.mp3"]
    assert list(named(tree / "*.wav")) == ["a.wav"]  # as the shell, without hidden files
    bracket = tree / "take[1].wav"
    bracket.touch()
    assert list(named(bracket)) == ["take[1].wav"]  # a file that is there is no pattern


def test_links_in_circles_and_what_systems_leave_are_not_followed(tree):
    for k in range(3):
        (tree / f"deep/up{k}").symlink_to(tree)
    for clutter in (".git/x.wav", "deep/.Trash-1000/x.mp3", "__MACOSX/x.wav"):
        (tree / clutter).parent.mkdir()
        (tree / clutter).touch()
    os.mkfifo(tree / "pipe.wav")
    everything = ["a.wav", "d.ogg", "deep/b.FLAC", "deep/er/c.mp3"]
    assert sorted(named(tree)) == everything
    assert sorted(named(tree / "**" / "*.*")) == sorted([*everything, "notes.doc", "deep/list.csv"])
    assert sorted(named(tree / "**")) == sorted([*everything, "notes.doc", "deep/list.csv"])
    assert sorted(named(tree / "d*" / "**" / "er" / "*.mp3")) == ["deep/er/c.mp3"]
    assert sorted(named(tree / ".git" / "*.wav")) == ["x.wav"]  # named by the user


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "deep/b.FLAC\n\na.wav\ndeep/b.FLAC\n"),
        ("list.tsv", "filename\tonset\tevent_label\ndeep/b.FLAC\t0\tCat\ndeep/b.FLAC\t1\tDog\na.wav\t\t\n"),
        ("bom.tsv", "\ufefffilename\r\ndeep/b.FLAC\r\na.wav\r\n"),
    ],
)
def test_lists(tree, name, content):
    (tree / name).write_text(content, encoding="utf-8")
    assert named(tree / name) == {"a.wav": "a", "deep/b.FLAC": "deep/b"}


def test_a_list_made_in_the_working_folder(tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "all.txt").write_text(f"in/a.wav\n{tree / 'd.ogg'}\nin/absent.wav\n../outside.wav\n")
    found = find_recordings(["lists/all.txt"])
    assert [entry.name for entry in found] == ["d.ogg", "in/a.wav", "in/absent.wav", "outside.wav"]
    assert [entry.path.exists() for entry in found] == [True, True, False, False]


def test_a_recording_meant_twice_is_one(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert list(named(tree, "a.wav", "deep/../a.wav", tree / "deep/b.FLAC")) == list(named(tree))


def test_equal_names_of_different_recordings_are_told_apart(tree):
    (tree / "deep" / "a.wav").touch()
    assert named(tree / "a.wav", tree / "deep" / "a.wav") == {"a.wav": "a", "deep/a.wav": "deep/a"}
    other = tree.parent / "other"
    other.mkdir()
    (other / "a.wav").touch()
    assert {"in/a.wav", "other/a.wav"} < set(named(tree, other))


def test_results_of_equal_stems_are_told_apart(tree):
    for name in ("a.flac", "a.wav.wav", "Y80.000_90.000"):
        (tree / name).touch()
    stems = named(tree, tree / "Y80.000_90.000")
    assert stems["a.wav"] == "a.wav" and stems["a.flac"] == "a.flac" and stems["a.wav.wav"] == "a.wav.wav"
    assert stems["Y80.000_90.000"] == "Y80.000_90.000"
    assert len(set(stems.values())) == len(stems)


def test_missing_files_stay_and_nothing_at_all_is_an_error(tree, tmp_path):
    assert list(named(tree / "absent.wav")) == ["absent.wav"]
    (tmp_path / "empty").mkdir()
    for argument in (tmp_path / "empty", tree / "*.aiff"):
        with pytest.raises(DataError, match="there are no recordings"):
            find_recordings([str(argument)])
    (tree / "latin.txt").write_bytes("Gerät.wav\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        find_recordings([str(tree / "latin.txt")])


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_are_disjoint_and_complete(tree, count):
    recordings = find_recordings([str(tree)])
    parts = [shard(recordings, f"{index + 1}/{count}") for index in range(count)]
    assert sorted((entry for part in parts for entry in part), key=lambda entry: entry.name) == recordings
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"])
def test_no_such_shard(tree, part):
    with pytest.raises(ValueError, match="is not a valid part"):
        shard(find_recordings([str(tree)]), part)


def test_names_are_the_same_wherever_the_command_runs(tree, monkeypatch):
    found = named(tree)
    monkeypatch.chdir(tree.parent)
    assert named("in") == named("in" + os.sep) == named("./in") == found


def test_a_list_with_a_name_that_no_file_can_have_names_it(tmp_path):
    line = "n" * 300
    (tmp_path / "list.txt").write_text(f"{line}\n")
    assert [each.name for each in find_recordings([str(tmp_path / "list.txt")])] == [line]
