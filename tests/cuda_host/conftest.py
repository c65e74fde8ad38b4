"""Programs around the CUDA kernels, compiled when first asked for, in one of the processes of pytest-xdist."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest
import torch

from .compiling import BUILDS, HERE, MissingTool, compile_once, shared_folder
from .running import Program


class Programs(Protocol):
    def __call__(self, kernel: str, build: str) -> Program:
        """The program of kernels/<kernel>.cpp; skips where the machine lacks what it takes."""
        ...


@pytest.fixture(scope="session")
def programs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs lie, and what they have in common."""
    return shared_folder(tmp_path_factory, "cuda_host")


@pytest.fixture(scope="session")
def programs(programs_folder: Path) -> Programs:
    @functools.cache
    def make(kernel: str, build: str) -> Program | MissingTool:
        try:
            program = Program(compile_once(HERE / "kernels" / f"{kernel}.cpp", build, programs_folder))
            program.check_that_it_runs()
        except MissingTool as missing:
            return missing
        return program

    def program(kernel: str, build: str) -> Program:
        made = make(kernel, build)
        if isinstance(made, MissingTool):
            pytest.skip(str(made))
        return made

    return program


def every_build(dtypes: Sequence[torch.dtype]) -> pytest.MarkDecorator:
    """Parametrizes a test by build and dtype. What orders memory accesses does not depend on their dtype."""
    pairs = [(build, dtype) for build in BUILDS for dtype in dtypes if build != "thread" or dtype == torch.float32]
    return pytest.mark.parametrize(("build", "dtype"), pairs)


@pytest.fixture(params=list(BUILDS))
def build(request: pytest.FixtureRequest) -> str:
    """Values under several schedules; the address and undefined behaviour sanitizers; the thread sanitizer."""
    return request.param
