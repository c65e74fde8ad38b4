"""How the benchmarks measure on a GPU, as far as that shows without one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import DeviceType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with warnings.catch_warnings():
    warnings.simplefilter("ignore", pytest.PytestUnknownMarkWarning)  # the benchmarks' own conftest registers theirs
    from benchmarks import measuring, profile_operators, side_by_side, test_training_step
    from benchmarks.conftest import without_tf32  # noqa: F401

CPU_CASE = side_by_side.Case(
    "square", "[3]", (torch.arange(3.0),), 24, 1e-6, differentiated=(0,), output_gradients=(torch.ones(3),)
)


def flags() -> tuple[bool, bool, bool]:
    return (
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.benchmark,
    )


@pytest.fixture
def with_library_defaults() -> Iterator[None]:
    """All that may round or choose by itself is on, and is so again after a test."""
    with side_by_side.tf32(True):
        torch.backends.cudnn.benchmark = True
        yield


def test_within_a_benchmark_float32_is_not_rounded_to_tf32() -> None:
    assert flags() == (False, False, False)  # by the fixture of all benchmarks, imported above


def test_the_former_precision_comes_back(with_library_defaults: None) -> None:
    with pytest.raises(KeyError), side_by_side.tf32(False):
        assert flags() == (False, False, False)
        raise KeyError
    assert flags() == (True, True, True)


def compared(
    monkeypatch: pytest.MonkeyPatch, device: str, reference: Callable[[Tensor], tuple[Tensor]], **options: Any
) -> dict[str, Callable[[], object]]:
    """What `compare` would time of `x ** 2` and a reference on tensors of the CPU, taken for those of `device`."""
    timed: dict[str, Callable[[], object]] = {}
    monkeypatch.setattr(side_by_side.SideBySide, "measure", lambda self, o, s, d, runs, **_: timed.update(runs))
    comparison = side_by_side.SideBySide(None, side_by_side.Report(), side_by_side.Settings(), device)
    comparison.compare(CPU_CASE, lambda x: (x**2,), reference, **options)
    return timed


def test_tf32_is_a_row_apart_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            seen.append(("forward", flags()))
            ctx.save_for_backward(x)
            return x**2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            seen.append(("backward", flags()))
            return 2 * grad * ctx.saved_tensors[0]

    def reference(x: Tensor) -> tuple[Tensor]:
        return (Square.apply(x),)

    timed = compared(monkeypatch, "cuda", reference, backward=True, multiplies=True)
    assert list(timed) == ["native", "reference", "reference, TF32"]
    for name, allowed in (("reference", False), ("reference, TF32", True)):
        seen.clear()
        timed[name]()
        assert seen == [(direction, (allowed, allowed, False)) for direction in ("forward", "backward")]
    assert "reference, TF32" not in compared(monkeypatch, "cpu", reference, multiplies=True)
    assert "reference, TF32" not in compared(monkeypatch, "cuda", reference)


@pytest.mark.parametrize(("error", "kept"), [(3e-4, True), (3e-3, False)])
def test_tf32_has_a_tolerance_of_its_own(monkeypatch: pytest.MonkeyPatch, error: float, kept: bool) -> None:
    def reference(x: Tensor) -> tuple[Tensor]:
        return (x**2 * (1 + error * torch.backends.cuda.matmul.allow_tf32),)

    timed = compared(monkeypatch, "cuda", reference, multiplies=True)
    assert ("reference, TF32" in timed) == kept and "reference" in timed


class FakeEvent:
    """A CUDA event; the list of all that happened, and whether the GPU has come to it."""

    happened: list[str] = []
    reached = False

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.happened.append("record")

    def query(self) -> bool:
        return self.reached

    def elapsed_time(self, end: FakeEvent) -> float:
        return 5.0


class Scratch:
    """Memory that says how it is used."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: FakeEvent.happened.append(name)


@pytest.mark.parametrize("reached", [False, True])
def test_a_gpu_timing_reads_the_cache_away_and_knows_whether_the_host_was_ahead(
    monkeypatch: pytest.MonkeyPatch, reached: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(FakeEvent, "happened", [])
    monkeypatch.setattr(FakeEvent, "reached", reached)
    clock = measuring.Clock("cuda")
    clock._scratch = Scratch()  # type: ignore[assignment]
    assert clock.seconds(lambda: FakeEvent.happened.append("run")) == 0.005
    assert FakeEvent.happened == ["sum"] * measuring.FLUSHES + ["record", "run", "record"]
    assert clock.host_ahead != reached


@pytest.mark.parametrize(("ahead", "note"), [(True, ""), (False, measuring.HOST_BEHIND)])
def test_a_row_says_that_the_host_was_behind(monkeypatch: pytest.MonkeyPatch, ahead: bool, note: str) -> None:
    class Benchmark:
        disabled = False
        extra_info: dict[str, object] = {}

        def pedantic(self, run: Callable[[], None], *, setup: Callable[[], None], rounds: int) -> None:
            for _ in range(rounds):
                setup()
                run()

    report = side_by_side.Report(bandwidths={"cpu": 1e9})
    comparison = side_by_side.SideBySide(Benchmark(), report, side_by_side.Settings(quick=True), "cpu")
    comparison.clock.host_ahead = ahead
    rows = comparison.measure("square", "[3]", "forward", {name: lambda: None for name in ("native", "reference")})
    assert [row.note for row in rows] == [note, note]


def test_each_comparison_is_compiled_anew_for_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[object]) -> Callable[..., object]:
        graphs.append([x.shape for x in inputs if isinstance(x, Tensor)])
        return graph.forward

    monkeypatch.setattr(
        torch, "compile", lambda f, compile=torch.compile, **options: compile(f, backend=backend, **options)
    )

    def square(x: Tensor) -> Tensor:
        return x**2

    for length in range(2, 14):  # more than Dynamo compiles of one function
        side_by_side.compiled(square)(torch.ones(length))  # type: ignore[arg-type]
    assert graphs == [[torch.Size([length])] for length in range(2, 14)]
    assert all(type(length) is int for shapes in graphs for length in shapes[0])


def event(kind: DeviceType, key: str, cpu: float, device: float, annotation: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        device_type=kind,
        key=key,
        count=1,
        self_cpu_time_total=cpu,
        self_device_time_total=device,
        is_user_annotation=annotation,
    )


def test_a_kernel_is_counted_once_in_the_shares_of_a_step() -> None:
    events = [
        event(DeviceType.CPU, "aten::mm", cpu=10.0, device=3000.0),
        event(DeviceType.CPU, "aten::add", cpu=30.0, device=1000.0),
        event(DeviceType.CUDA, "gemm_kernel", cpu=0.0, device=3000.0),
        event(DeviceType.CUDA, "add_kernel", cpu=0.0, device=1000.0),
        event(DeviceType.CUDA, "Optimizer.step", cpu=0.0, device=4000.0, annotation=True),
    ]
    on_gpu, on_cpu = (test_training_step.shares(events, device).splitlines() for device in ("cuda", "cpu"))
    assert [line.split() for line in on_gpu] == [
        ["75.0", "%", "3.00", "ms", "1", "x", "gemm_kernel"],
        ["25.0", "%", "1.00", "ms", "1", "x", "add_kernel"],
    ]
    assert [line.split()[0] for line in on_cpu] == ["75.0", "25.0"] and on_cpu[0].endswith("aten::add")


def test_what_is_profiled_has_the_shapes_of_the_headline_benchmarks() -> None:
    printed = [profile_operators.run_twice(name, "cpu") for name in ("reorder", "mel_spectrogram")]
    assert printed == ["reorder rows [12,5,128,628]", "mel_spectrogram [12,160000]"]


def test_there_is_nothing_to_profile_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="nothing to profile on cuda: there is no GPU; use --device cpu"):
        profile_operators.main([])
