"""The corpus is there whole or not at all, once, where the user wants it."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from task_aware import corpus
from task_aware.base.errors import DataError
from task_aware.data.recordings import cache_folder
from task_aware.synthesis import build as build_module
from task_aware.synthesis import builtin_corpus, cache
from task_aware.synthesis.cache import make_corpus


def stand_in_build(root: Path, *, seed: int, size: str, progress: bool) -> None:
    """A build that takes no time: one file and the manifest."""
    (root / "audio").mkdir()
    (root / "audio/one.flac").write_bytes(b"sound")
    manifest = {**build_module.identity(seed, size), "audio_files": 1}
    (root / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def quick_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "build", stand_in_build)


def never_build(root: Path, **_: object) -> None:
    raise AssertionError("built again")


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TASK_AWARE_CACHE", str(tmp_path / "chosen"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "chosen"
    monkeypatch.delenv("TASK_AWARE_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "task_aware"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "task_aware"


def test_the_second_call_only_looks(tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "build", never_build)
    assert builtin_corpus(tiny_corpus.parent, size="tiny", progress=False) == tiny_corpus


@pytest.mark.parametrize("manifest", ["[]", "null", "[" * 100_000])
def test_a_folder_with_another_manifest_is_not_the_corpus(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(DataError, match="holds something other than the built-in corpus"):
        make_corpus(tmp_path, size="tiny", progress=False)


def test_size_and_seed_have_folders_of_their_own(quick_build: None, tmp_path: Path) -> None:
    roots = {builtin_corpus(tmp_path, seed=seed, size=size) for seed in (0, 1) for size in ("tiny", "full")}
    assert len(roots) == 4


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_build_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: BaseException
) -> None:
    written = []

    def failing_write(path: Path, *_: object) -> None:
        written.append(path)
        if len(written) > 5:
            raise interruption
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    monkeypatch.setattr(build_module, "write_audio", failing_write)
    expected = KeyboardInterrupt if interruption is KeyboardInterrupt else DataError
    with pytest.raises(expected):
        builtin_corpus(tmp_path, size="tiny", progress=False)
    assert written
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_build_left_is_removed_once_it_is_old(quick_build: None, tmp_path: Path) -> None:
    name = builtin_corpus(tmp_path, size="tiny").name
    old, young = tmp_path / f".{name}-aaaa", tmp_path / f".{name}-bbbb"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (time.time() - 7200.0,) * 2)
    (tmp_path / name).rename(tmp_path / "elsewhere")
    builtin_corpus(tmp_path, size="tiny")
    assert young.exists() and not old.exists()


def _build_in_process(folder: Path, barrier: object, results: object) -> None:
    def slow_build(root: Path, **options: object) -> None:
        barrier.wait(60)  # type: ignore[attr-defined]
        stand_in_build(root, **options)  # type: ignore[arg-type]

    cache.build = slow_build  # type: ignore[assignment]
    results.put(str(builtin_corpus(folder, size="tiny", progress=False)))  # type: ignore[attr-defined]


def test_two_processes_at_once_both_get_the_corpus(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_build_in_process, args=(tmp_path, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    roots = {results.get(timeout=120) for _ in workers}
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(roots) == 1
    assert [path.name for path in tmp_path.iterdir()] == [Path(roots.pop()).name]


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="set TASK_AWARE_CACHE") as caught:
        builtin_corpus(tmp_path / "file" / "cache", size="tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_says_what_to_set(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="set TASK_AWARE_CACHE"):
        builtin_corpus(tmp_path / "cache", size="tiny")


def test_a_damaged_corpus_is_named(quick_build: None, tmp_path: Path) -> None:
    root = builtin_corpus(tmp_path, size="tiny")
    (root / "audio/one.flac").unlink()
    with pytest.raises(DataError, match="0 of the 1 audio files"):
        builtin_corpus(tmp_path, size="tiny")


def test_a_folder_of_something_else_is_left_alone(quick_build: None, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(DataError, match="something other than the built-in corpus"):
        corpus.main(["--out", str(tmp_path), "--size", "tiny"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("arguments", [{"size": "huge"}, {"seed": -1}])
def test_wrong_arguments_are_named(tmp_path: Path, arguments: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        builtin_corpus(tmp_path, **arguments)


def test_the_command_makes_the_corpus_where_it_is_told(
    quick_build: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made"
    corpus.main(["--out", str(out), "--seed", "3", "--size", "tiny", "--quiet"])
    assert capsys.readouterr().out.strip() == str(out)
    assert json.loads((out / "manifest.json").read_text())["seed"] == 3
