"""Compares implementations of one operator: checks them against float64 results, then times them side by side.

Each round runs all of them, so that a machine that slows down affects all alike. Times are medians over the rounds,
ratios are medians of the rounds' ratios.
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

#: Tolerance of TF32 relative to float64: its factors have 11 significant bits, whose errors average out.
TF32_TOLERANCE = 1e-3

#: On the CPU, a timing covers as many calls as fit into this many seconds.
SHORTEST_TIMING = 2e-3


@dataclass(frozen=True)
class Settings:
    """The command line options, and how long everything may take."""

    quick: bool = False
    full: bool = False
    headline: bool = False
    profile: bool = False

    @property
    def compiled(self) -> bool:
        """Whether torch.compile of an operator's reference is compared too."""
        return self.full or self.headline

    @property
    def seconds(self) -> float:
        """Approximate duration of a comparison."""
        return 0.1 if self.quick else 4.0

    @property
    def rounds(self) -> tuple[int, int]:
        """Smallest and largest number of rounds."""
        return (2, 5) if self.quick else (5, 50)


@dataclass(frozen=True)
class Case:
    """An operator with its inputs.

    Attributes:
        operator, shape: their names in the table.
        inputs: arguments of every implementation; None stands for an absent one.
        differentiated: indices of the inputs whose gradients are computed when the backward is measured.
        output_gradients: gradients of the floating outputs.
        bytes_forward, bytes_backward: minimal traffic, each input read and each output written once.
        tolerance: largest distance of an output or gradient from float64, relative to the norm of the latter.
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
    """A row of the table; what was not measured is None."""

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
    """What is printed at the end of the run."""

    rows: list[Row] = field(default_factory=list)
    bandwidths: dict[str, float] = field(default_factory=dict)
    sections: list[tuple[str, str]] = field(default_factory=list)


def peer(name: str) -> ModuleType | None:
    """Imports a package, or returns None if that fails; a torchaudio that does not match torch raises OSError."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError):
        return None


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Sets whether float32 convolutions, recurrent layers and matrix products on a GPU may round factors to TF32.

    By default PyTorch allows it only in cuDNN. Also turns off cuDNN's search for algorithms, whose choice varies
    between runs.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    former = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = allowed, allowed, False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = former


def with_tf32(run: Run) -> Run:
    """Wraps `run` so that TF32 is allowed, including in its backward."""

    def run_with_tf32() -> Outputs:
        with tf32(True):
            return run()

    return run_with_tf32


def compiled(function: Implementation) -> Implementation:
    """Compiles a function with torch.compile, as if it were the first in the process.

    Otherwise Dynamo would remember other shapes and dtypes of the same code, compile for dynamic shapes, and stop
    compiling after eight of them.
    """
    torch.compiler.reset()
    return torch.compile(function)


def prepare(case: Case, function: Implementation, *, backward: bool, dtype: torch.dtype | None = None) -> Run:
    """Makes a call of `function` on the case's inputs that returns outputs and, with `backward`, gradients."""

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
    """Says how `got` differs from the float64 results by more than the tolerance; empty if it does not."""
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
    """The timer of pytest-benchmark; it advances by the time that `Clock` measured, on any device."""
    return _measured


class SideBySide:
    """Compares implementations within one test.

    Args:
        benchmark: pytest-benchmark's fixture, which records the native implementation, and all rows as extra_info.
        report: collects the rows.
        settings: the options.
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

        A peer that fails or disagrees is listed in the table but not timed; a native operator or a reference that
        disagrees fails the test. A reference that `multiplies` matrices gets a second row with TF32 on a GPU.
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
                except Exception as error:  # a peer that fails, in whatever way, is only left out
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
        """Times `runs`, equivalent calls that include `native` and `reference`, in interleaved rounds.

        With `settled`, each runs once more before it is timed, so that it finds caches and memory as it left them.
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
