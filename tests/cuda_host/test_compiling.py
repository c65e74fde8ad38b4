"""What the tests' processes share: each program is compiled once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from . import compiling


def test_a_program_is_compiled_once_however_many_ask_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile_slowly(source: Path, kind: str, folder: Path) -> Path:
        compiled.append(kind)
        time.sleep(0.3)
        program = folder / f"{source.stem}_{kind}"
        program.touch()
        return program

    monkeypatch.setattr(compiling, "compile_program", compile_slowly)
    with ThreadPoolExecutor(4) as threads:
        asked = [
            threads.submit(compiling.compile_once, Path("a.cpp"), kind, tmp_path) for kind in ("plain", "thread") * 3
        ]
    assert {future.result().name for future in asked} == {"a_plain", "a_thread"}
    assert sorted(compiled) == ["plain", "thread"]


def test_the_folder_is_that_of_the_run_in_each_process(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path_factory.getbasetemp()
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    assert compiling.shared_folder(tmp_path_factory, "shared").parent == base
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    monkeypatch.setattr(tmp_path_factory, "getbasetemp", lambda: base / "popen-gw0")
    assert compiling.shared_folder(tmp_path_factory, "shared").parent == base
