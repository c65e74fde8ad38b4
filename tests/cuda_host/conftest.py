"""Programs around the CUDA kernels, compiled once, however many processes of pytest-xdist run the tests."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest
import torch

from .compiling import BUILDS, COUNTS, HERE, MissingTool, compile_once, shared_folder
from .running import Program


class Programs(Protocol):
    def __call__(self, kernel: str, build: str) -> Program:
        """The program of kernels/<kernel>.cpp; skips where the machine lacks what it takes."""
        ...


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    folder = shared_folder(tmp_path_factory, "cuda_host")

    def make(source: Path, kind: str) -> Program:
        program = Program(compile_once(source, kind, folder))
        program.check_that_it_runs()
        return program

    sources = sorted((HERE / "kernels").glob("*.cpp"))
    with ThreadPoolExecutor(os.cpu_count()) as compilers:
        futures = {
            (source.stem, kind): compilers.submit(make, source, kind)
            for source, kind in itertools.product(sources, BUILDS | COUNTS)
        }

        def program(kernel: str, kind: str) -> Program:
            try:
                return futures[kernel, kind].result()
            except MissingTool as missing:
                pytest.skip(str(missing))

        yield program
        compilers.shutdown(cancel_futures=True)


def every_build(dtypes: Sequence[torch.dtype]) -> pytest.MarkDecorator:
    """Parametrizes a test by build and dtype. What orders memory accesses does not depend on their dtype."""
    pairs = [(build, dtype) for build in BUILDS for dtype in dtypes if build != "thread" or dtype == torch.float32]
    return pytest.mark.parametrize(("build", "dtype"), pairs)


@pytest.fixture(params=list(BUILDS))
def build(request: pytest.FixtureRequest) -> str:
    """Values under several schedules; the address and undefined behaviour sanitizers; the thread sanitizer."""
    return request.param
