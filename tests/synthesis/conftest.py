"""One tiny corpus for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from task_aware.synthesis import builtin_corpus


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builtin_corpus(tmp_path_factory.mktemp("cache"), size="tiny", progress=False)
