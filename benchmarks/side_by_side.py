"""Implementations of one operator, held against float64 and then timed side by side.

All of them run in each round, so that a machine that slows down slows them all; times are medians over the
rounds, ratios medians of the rounds' ratios.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .measuring import HOST_BEHIND, Clock, copy_bandwidth, peak_memory

Outputs = tuple[Tensor, ...]
Implementation = Callable[..., Sequence[Tensor]]
Run = Callable[[], Outputs]

#: What TF32 may differ from float64: its factors have 11 significant bits, their errors average out.
TF32_TOLERANCE = 1e-3

#: On the CPU a timing covers as many calls as this many seconds hold.
SHORTEST_TIMING = 2e-3


@dataclass(frozen=True)
class Settings:
    """How long everything may take."""

    quick: bool = False
    full: bool = False
    headline: bool = False
    profile: bool = False

    @property
    def compiled(self) -> bool:
        """Whether torch.compile of an operator's reference takes part."""
        return self.full or self.headline

    @property
    def seconds(self) -> float:
        """Time of one comparison."""
        return 0.1 if self.quick else 4.0

    @property
    def rounds(self) -> tuple[int, int]:
        """The fewest and the most rounds."""
        return (2, 5) if self.quick else (5, 50)


@dataclass(frozen=True)
class Case:
    """An operator with its inputs.

    Attributes:
        operator, shape: as the table names them.
        inputs: arguments of every implementation; None stands for an absent one.
        differentiated: which of them get a gradient when the backward is measured.
        output_gradients: what flows back into the floating outputs.
        bytes_forward, bytes_backward: the least that must move, each input read and each output written once.
        tolerance: largest distance from float64, relative to its norm, of any output and gradient.
    """

    operator: str
    shape: str
    inputs: tuple[Tensor | None, ...]
    bytes_forward: int
    tolerance: float
    differentiated: tuple[int, ...] = ()
    output_gradients: tuple[Tensor, ...] = ()
    bytes_backward: int = 0


@dataclass
class Row:
    """A line of the table; None where something was not measured."""

    operator: str
    shape: str
    direction: str
    device: str
    implementation: str
    milliseconds: float | None = None
    speed: float | None = None
    copy_share: float | None = None
    peak_mib: float | None = None
    note: str = ""


@dataclass
class Report:
    """What the end of the run prints."""

    rows: list[Row] = field(default_factory=list)
    bandwidths: dict[str, float] = field(default_factory=dict)
    sections: list[tuple[str, str]] = field(default_factory=list)


def peer(name: str) -> ModuleType | None:
    """An installed package, or None; torchaudio raises OSError beside a torch that it does not fit."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError):
        return None


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 convolutions, recurrent layers and matrix products on a GPU may round their factors to TF32.

    By default PyTorch allows it to cuDNN alone. cuDNN's search for algorithms, which chooses anew in each run, is off.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    former = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = allowed, allowed, False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = former


def with_tf32(run: Run) -> Run:
    """`run` with TF32 allowed, in its backward too."""

    def run_with_tf32() -> Outputs:
        with tf32(True):
            return run()

    return run_with_tf32


def compiled(function: Implementation) -> Implementation:
    """torch.compile of a function, as if it were the first of the process.

    Dynamo otherwise remembers other shapes and dtypes of the same code: it would compile for shapes of any size, and
    after eight of them not at all.
    """
    torch.compiler.reset()
    return torch.compile(function)


def prepare(case: Case, function: Implementation, *, backward: bool, dtype: torch.dtype | None = None) -> Run:
    """A call of `function` on the case's inputs; it returns outputs and, with `backward`, gradients."""

    def cast(tensor: Tensor | None) -> Tensor | None:
        return tensor.to(dtype) if tensor is not None and dtype and tensor.is_floating_point() else tensor

    inputs = [cast(x) for x in case.inputs]
    if not backward:

        @torch.no_grad()
        def forward() -> Outputs:
            return tuple(function(*inputs))

        return forward

    leaves = [
        x.detach().requires_grad_(k in case.differentiated) if x is not None else None for k, x in enumerate(inputs)
    ]
    wanted = [x for x in leaves if x is not None and x.requires_grad]
    gradients = [cast(x) for x in case.output_gradients]

    def forward_and_backward() -> Outputs:
        outputs = tuple(function(*leaves))
        differentiable = [x for x in outputs if x.requires_grad]
        return *(x.detach() for x in outputs), *torch.autograd.grad(differentiable, wanted, gradients)

    return forward_and_backward


def disagreement(got: Outputs, expected: Outputs, tolerance: float) -> str:
    """How `got` differs from float64 results by more than rounding; empty where it does not."""
    if len(got) != len(expected):
        return f"{len(got)} outputs instead of {len(expected)}"
    for k, (mine, wanted) in enumerate(zip(got, expected, strict=True)):
        if mine.shape != wanted.shape:
            return f"output {k} has the shape {tuple(mine.shape)} instead of {tuple(wanted.shape)}"
        if not wanted.is_floating_point():
            if not torch.equal(mine, wanted):
                return f"output {k} differs"
            continue
        distance = float(torch.linalg.vector_norm(mine.double() - wanted))
        scale = float(torch.linalg.vector_norm(wanted))
        if not distance <= tolerance * scale:
            return f"output {k} is off by {distance / max(scale, 1e-300):.1e} of its norm"
    return ""


_measured = 0.0


def measured_seconds() -> float:
    """The timer that pytest-benchmark reads: it advances by what `Clock` measured, whatever the device."""
    return _measured


class SideBySide:
    """Compares implementations within one test.

    Args:
        benchmark: pytest-benchmark's fixture; records the native implementation, and all rows as extra_info.
        report: collects the rows.
        settings: how long to measure.
        device: cpu or cuda.
    """

    def __init__(self, benchmark: Any, report: Report, settings: Settings, device: str) -> None:
        self.benchmark = benchmark
        self.report = report
        self.settings = settings
        self.device = device
        self.clock = Clock(device)

    def compare(
        self,
        case: Case,
        native: Implementation,
        reference: Implementation,
        peers: Mapping[str, Implementation] | None = None,
        *,
        backward: bool = False,
        multiplies: bool = False,
    ) -> None:
        """Checks every implementation against the reference in float64, then times those that agree.

        A peer that fails or disagrees is named in the table and not timed; a native operator or a reference
        that disagrees fails the test. Of a reference that `multiplies` matrices a GPU gets a second row, with TF32.
        """
        expected = prepare(case, reference, backward=backward, dtype=torch.float64)()
        functions = {"native": native, "reference": reference, **(peers or {})}
        if self.settings.compiled:
            functions["torch.compile of the reference"] = compiled(reference)
        candidates = {name: prepare(case, function, backward=backward) for name, function in functions.items()}
        tolerances = dict.fromkeys(candidates, case.tolerance)
        if multiplies and self.device == "cuda":
            candidates["reference, TF32"] = with_tf32(candidates["reference"])
            tolerances["reference, TF32"] = TF32_TOLERANCE
        runs, notes = {}, {}
        for name, run in candidates.items():
            if name in ("native", "reference"):
                problem = disagreement(run(), expected, case.tolerance)
                assert not problem, f"{name} {case.operator} of {case.shape} on {self.device}: {problem}"
            else:
                try:
                    problem = disagreement(run(), expected, tolerances[name])
                except Exception as error:  # a peer may fail in any way, and is then only left out
                    problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            if problem:
                notes[name] = problem
            else:
                runs[name] = run
        del expected
        n_bytes = case.bytes_forward + (case.bytes_backward if backward else 0)
        direction = "forward + backward" if backward else "forward"
        self.measure(case.operator, case.shape, direction, runs, n_bytes=n_bytes)
        self.report.rows += [
            Row(case.operator, case.shape, direction, self.device, name, note=f"left out: {problem}")
            for name, problem in notes.items()
        ]

    def measure(
        self,
        operator: str,
        shape: str,
        direction: str,
        runs: Mapping[str, Callable[[], object]],
        *,
        n_bytes: int | None = None,
        settled: bool = False,
    ) -> list[Row]:
        """Times `runs` (`native` and `reference` among them), which give the same, in interleaved rounds.

        `settled` runs each once more before it is timed: caches and memory are then as it left them itself.
        """
        global _measured
        if self.benchmark.disabled:
            return []
        first = {name: self.clock.seconds(run) for name, run in runs.items()}
        peaks = {name: peak_memory(run, self.device) for name, run in runs.items()}
        second = {name: min(first[name], self.clock.seconds(run)) for name, run in runs.items()}
        calls = {name: max(1, round(SHORTEST_TIMING / max(t, 1e-7))) for name, t in second.items()}
        a_round = sum(max(t, SHORTEST_TIMING) for t in second.values()) * (2 if settled else 1)
        fewest, most = self.settings.rounds
        rounds = min(most, max(fewest, round(self.settings.seconds / a_round)))
        times: dict[str, list[float]] = {name: [] for name in runs}
        ahead: dict[str, list[bool]] = {name: [] for name in runs}

        def measure_one(name: str) -> None:
            times[name].append(self.clock.seconds(runs[name], calls[name]))
            ahead[name].append(self.clock.host_ahead)

        def others() -> None:
            for name in runs:
                if name != "native":
                    if settled:
                        runs[name]()
                    measure_one(name)
            if settled:
                runs["native"]()

        def native() -> None:
            global _measured
            measure_one("native")
            _measured += times["native"][-1]

        self.benchmark.group = f"{operator} {shape} {direction} {self.device}"
        self.benchmark.pedantic(native, setup=others, rounds=rounds)

        if self.device not in self.report.bandwidths:
            self.report.bandwidths[self.device] = copy_bandwidth(self.clock, self.settings.quick)
        bandwidth = self.report.bandwidths[self.device]
        rows = []
        for name in runs:
            median = statistics.median(times[name])
            speed = statistics.median(r / t for r, t in zip(times["reference"], times[name], strict=True))
            share = n_bytes / median / bandwidth if n_bytes else None
            note = "" if statistics.mean(ahead[name]) > 0.5 else HOST_BEHIND
            row = Row(operator, shape, direction, self.device, name, 1000 * median, speed, share, peaks[name], note)
            rows.append(row)
        self.report.rows += rows
        self.benchmark.extra_info["copy_bytes_per_second"] = bandwidth
        self.benchmark.extra_info["implementations"] = [asdict(row) for row in rows]
        return rows
