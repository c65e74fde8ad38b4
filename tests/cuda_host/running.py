"""Runs cases through the programs of compiling.py and compares what comes out."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from .compiling import MissingTool

# A run ends at the first finding, through abort(), so that it can say in which kernel, block and thread.
SANITIZERS = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_leaks=0",
    "UBSAN_OPTIONS": "abort_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "abort_on_error=1:halt_on_error=1",
}


class KernelError(AssertionError):
    """What the host run found: its own sentence or a sanitizer's report, with kernel, block and thread."""


@dataclass
class Shifted:
    """A tensor that begins `elements` behind an aligned address, as a view into another one does."""

    tensor: Tensor
    elements: int


def raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check(name: str, value: Tensor, wanted: Tensor, tolerance: float, scale: float | None = None) -> None:
    """Equal to within `tolerance` of `scale`, by default the largest finite value; NaN and infinity where wanted."""
    wanted = wanted.detach().double()
    finite = wanted[wanted.isfinite()]
    if scale is None:
        scale = float(finite.abs().max()) if finite.numel() else 0.0
    torch.testing.assert_close(
        value.double(), wanted, rtol=0, atol=tolerance * scale, equal_nan=True, msg=lambda text: f"{name}: {text}"
    )


@dataclass
class Case:
    """One launch of an operator's kernels: what goes in, and what is to come out."""

    name: str
    inputs: dict[str, Tensor | Shifted | str | int | float | None]
    """Tensors become device memory, None is memory that is absent."""
    outputs: dict[str, tuple[torch.dtype, tuple[int, ...]]]

    def encode(self, schedules: int) -> bytes:
        lines = [f"number schedules {schedules}\n".encode()]
        for name, value in self.inputs.items():
            if isinstance(value, Tensor | Shifted):
                shifted = value if isinstance(value, Shifted) else Shifted(value, 0)
                data, shift = raw(shifted.tensor), shifted.elements * shifted.tensor.element_size()
                lines += [f"array {name} {len(data)} {shift}\n".encode(), data, b"\n"]
            elif value is not None:
                lines.append(f"{'word' if isinstance(value, str) else 'number'} {name} {value}\n".encode())
        return b"".join([*lines, b"end\n"])

    def decode(self, answer: BinaryIO) -> Answer:
        tensors, counts = {}, {}
        while (line := answer.readline().decode().split()) and line[0] != "end":
            data = bytearray(answer.read(int(line[1])))
            if line[0] == "counts":
                rows = [row.split("\t") for row in data.decode().splitlines()]
                counts = {kernel: Counts(*map(int, numbers)) for kernel, *numbers in rows}
                continue
            dtype, shape = self.outputs[line[0]]
            tensors[line[0]] = (
                torch.frombuffer(data, dtype=dtype).view(shape) if data else torch.empty(shape, dtype=dtype)
            )
        return Answer(tensors, counts)


@dataclass
class Counts:
    """What a kernel's launches cost the memory pipelines, over all blocks: see counting.h."""

    blocks: int
    wavefronts: int
    least_wavefronts: int
    lines: int
    least_lines: int


@dataclass
class Answer:
    """What a case left: its outputs, and in the build `counts` the costs of its kernels by their names."""

    tensors: dict[str, Tensor]
    counts: dict[str, Counts]


class Program:
    """A compiled kernel file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check_that_it_runs(self) -> None:
        """Raises MissingTool where the thread sanitizer cannot place its memory, as older ones under newer Linux."""
        done = subprocess.run([self.path], input=b"", capture_output=True)
        if b"unexpected memory mapping" in done.stderr:
            raise MissingTool("the thread sanitizer does not run under this system's address randomisation")

    def run(self, cases: Sequence[Case], *, schedules: int = 1, timeout: float = 120) -> list[dict[str, Tensor]]:
        """Runs `cases` in one process, every launch under `schedules` orders of its threads; returns their outputs.

        Raises KernelError with what was found and in which case.
        """
        return [answer.tensors for answer in self._answers(cases, schedules, timeout)]

    def count(self, case: Case, *, timeout: float = 120) -> dict[str, Counts]:
        """Runs `case` in a program of the build `counts`; returns what each of its kernels costs."""
        return self._answers([case], 1, timeout)[0].counts

    def _answers(self, cases: Sequence[Case], schedules: int, timeout: float) -> list[Answer]:
        stdin = b"".join(case.encode(schedules) for case in cases)
        try:
            done = subprocess.run(
                [self.path], input=stdin, capture_output=True, timeout=timeout, env=os.environ | SANITIZERS
            )
        except subprocess.TimeoutExpired:
            raise KernelError(f"{self.path.name} did not come to an end within {timeout} s") from None
        output = io.BytesIO(done.stdout)
        answers = [case.decode(output) for case in cases]
        if done.returncode:
            unanswered = [case.name for case, answer in zip(cases, answers, strict=True) if not answer.tensors]
            report = done.stderr.decode(errors="replace")
            raise KernelError(f"{self.path.name}, case {[*unanswered, 'none'][0]}:\n{report}")
        return answers
