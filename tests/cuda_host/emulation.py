"""Puts the emulated CUDA kernels in the place of the package's CPU kernels, behind the operators themselves."""

from __future__ import annotations

import ctypes
import importlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from .compiling import CSRC, compile_operators

# The modules, whose names in task_aware.ops are those of their functions.
conv_glu_pool, glu_pool, mask_resynthesis, mel_spectrogram, reverb_mix = (
    importlib.import_module(f"task_aware.ops.{name}")
    for name in ("conv_glu_pool", "glu_pool", "mask_resynthesis", "mel_spectrogram", "reverb_mix")
)


# That a block may have.
SHARED_KIBIBYTES = {75: 64, 80: 163, 86: 99, 90: 227}


def operators_of(source: Path) -> list[str]:
    """The operators that a `csrc/cuda/<op>.cu` registers."""
    return re.findall(r'm\.impl\("(\w+)"', source.read_text())


class Emulation:
    """The operators of `sources`, by default all of `csrc/cuda/`, on emulated kernels in a `library` of torch.

    Headers in `first` stand in for the package's. In the environment, CUDA_HOST_BUILD chooses among
    BUILDS, "plain" or "address", and CUDA_HOST_SCHEDULE what choose_schedule() does. Raises MissingTool where they
    cannot be compiled.
    """

    def __init__(
        self,
        folder: Path,
        sources: Sequence[Path] | None = None,
        *,
        library: str = "task_aware_emulated",
        first: Path | None = None,
    ) -> None:
        sources = sources or sorted(CSRC.glob("cuda/*.cu"))
        path = folder / f"{library}.so"
        with FileLock(folder / f"{library}.lock"):
            if not path.exists():
                compile_operators(sources, library, os.environ.get("CUDA_HOST_BUILD", "plain"), folder, first)
        self.names = [name for source in sources for name in operators_of(source)]
        self._library = library
        self._schemas = torch.library.Library(library, "DEF")
        for name in self.names:
            schema = str(getattr(torch.ops.task_aware, name).default._schema)
            self._schemas.define(schema.removeprefix("task_aware::"))
        torch.ops.load_library(str(path))
        self._functions = ctypes.CDLL(str(path))
        self.choose_schedule(int(os.environ.get("CUDA_HOST_SCHEDULE", "0")))

    def choose_schedule(self, schedule: int) -> None:
        """The order in which blocks and threads run: 0 from the first, 1 from the last, others at random."""
        self._functions.choose_schedule(schedule)

    @contextmanager
    def gpu(self, architecture: int) -> Iterator[None]:
        """While it lasts, kernels are compiled for so much, 75 for sm_75, and have its shared memory; else for 90."""
        self._choose(architecture)
        try:
            yield
        finally:
            self._choose(90)

    def _choose(self, architecture: int) -> None:
        self._functions.choose_architecture(architecture)
        self._functions.choose_shared_limit(ctypes.c_size_t(SHARED_KIBIBYTES[architecture] * 1024))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """While it lasts, CPU tensors go through the CUDA operators, and new memory holds NaN until it is written."""
        deterministic = torch.are_deterministic_algorithms_enabled()
        overrides = torch.library.Library("task_aware", "IMPL")
        with pytest.MonkeyPatch.context() as patch:
            # What Python decides by the device.
            for module in (conv_glu_pool, glu_pool):
                patch.setattr(module, "empty_output", lambda x, *sizes: x.new_empty(sizes))
            for module in (mask_resynthesis, mel_spectrogram, reverb_mix):
                patch.setattr(module, "served_by_cuda", lambda tensor: True)
            try:
                torch.use_deterministic_algorithms(True)  # with torch.utils.deterministic.fill_uninitialized_memory
                for name in self.names:
                    overrides.impl(name, getattr(getattr(torch.ops, self._library), name).default, "CPU")
                yield
            finally:
                overrides._destroy()
                torch.use_deterministic_algorithms(deterministic)
