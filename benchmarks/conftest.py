"""`pytest benchmarks`: compares the speed of the native kernels with other implementations on this machine.

Every test checks all implementations against float64 results before timing them; timings are never asserted.
The result is the table at the end; `--benchmark-json FILE` saves it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import fields

# BLAS threads of other libraries sleep at once (after 2^4 cycles): spinning, they would slow down what runs next.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

import pytest
import torch

from task_aware.ops import _extension

from .side_by_side import Report, Row, Settings, SideBySide, measured_seconds, tf32

_report = pytest.StashKey[Report]()

COLUMNS = ("implementation", "median ms", "x reference", "of copy", "peak MiB", "")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("task_aware benchmarks")
    group.addoption(
        "--quick", action="store_true", help="small shapes and few rounds: check correctness within a minute"
    )
    group.addoption(
        "--full", action="store_true", help="also measure torch.compile of the references, and larger shapes"
    )
    group.addoption(
        "--headline",
        action="store_true",
        help="only the shapes with predicted times, glu_pool, reorder and the training step; "
        "also measure torch.compile of the operators' references",
    )
    group.addoption("--profile", action="store_true", help="also print a profile of the training step")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[_report] = Report()
    config.addinivalue_line("markers", "shapes(default, quick=, full=, headline=): values of the argument `shape`")
    if not config.getoption("benchmark_verbose", False):
        config.option.benchmark_quiet = True  # the table printed here is more informative


def get_settings(config: pytest.Config) -> Settings:
    """The options; their defaults if this directory is not named on the command line."""
    return Settings(**{field.name: config.getoption(field.name, False) for field in fields(Settings)})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("shapes")
    if marker is None:
        return
    settings = get_settings(metafunc.config)
    shapes = marker.args[0]
    if settings.quick:
        shapes = marker.kwargs["quick"]
    elif settings.full:
        shapes = [*shapes, *marker.kwargs.get("full", [])]
    elif settings.headline:
        shapes = marker.kwargs.get("headline", [])
    metafunc.parametrize("shape", shapes, ids=str)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "side_by_side" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.benchmark(timer=measured_seconds))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """The CPU, and the GPU if there is one."""
    extension = _extension.extension
    if request.param == "cpu" and not extension.cpu:
        pytest.skip(f"no CPU kernels: {extension.cpu_absent}")
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA GPU")
        if not extension.cuda:
            pytest.skip(f"no CUDA kernels: {extension.cuda_absent}")
    return request.param


@pytest.fixture(autouse=True)
def without_tf32() -> Iterator[None]:
    """Disables TF32, so that float32 is exact on a GPU too; timings with TF32 are marked as such in the table."""
    with tf32(False):
        yield


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> Settings:
    return get_settings(request.config)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    return request.config.stash[_report]


@pytest.fixture
def side_by_side(device: str, benchmark, report: Report, settings: Settings) -> Iterator[SideBySide]:  # type: ignore[no-untyped-def]
    """The comparison that a test makes, with the same random tensors in every run. `-s` prints it immediately."""
    torch.manual_seed(0)
    known = len(report.rows)
    yield SideBySide(benchmark, report, settings, device)
    if rows := report.rows[known:]:
        print("", *table(rows), sep="\n")


def number(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)


def cells(row: Row) -> tuple[str, ...]:
    """Formats a row of the table."""
    return (
        row.implementation,
        number(row.milliseconds, "{:.3f}"),
        number(row.speed, "{:.2f}"),
        number(None if row.copy_share is None else 100 * row.copy_share, "{:.1f} %"),
        number(row.peak_mib, "{:.0f}"),
        row.note,
    )


def table(rows: Sequence[Row]) -> list[str]:
    """Formats the table, with one block of lines per comparison."""
    widths = [max(len(line[k]) for line in (COLUMNS, *map(cells, rows))) for k in range(len(COLUMNS))]

    def line(texts: Sequence[str]) -> str:
        numbers = "  ".join(text.rjust(width) for text, width in zip(texts[1:5], widths[1:5], strict=True))
        return f"  {texts[0].ljust(widths[0])}  {numbers}  {texts[5]}".rstrip()

    lines = [line(COLUMNS)]
    previous = None
    for row in rows:
        title = f"{row.operator} {row.shape}, {row.direction}, {row.device}"
        if title != previous:
            lines += ["", title]
        previous = title
        lines.append(line(cells(row)))
    return lines


def machine(report: Report) -> list[str]:
    """Describes the machine that the table was measured on."""
    lines = []
    for device, bandwidth in report.bandwidths.items():
        name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
        threads = "" if device == "cuda" else f", {torch.get_num_threads()} threads"
        lines.append(f"{device}: {name}{threads}, copies {bandwidth / 1e9:.1f} GB/s (read + write)")
    return [*lines, f"torch {torch.__version__}"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    report = config.stash[_report]
    write = terminalreporter.write_line
    if report.rows:
        write_table(report, config, terminalreporter)
    for title, text in report.sections:
        terminalreporter.section(title)
        write(text)


def write_table(report: Report, config: pytest.Config, terminalreporter: pytest.TerminalReporter) -> None:
    write = terminalreporter.write_line
    terminalreporter.section("side by side")
    for line in machine(report):
        write(line)
    if get_settings(config).quick:
        write("--quick: all results were checked, but there were too few rounds for reliable timings")
    write("x reference: speed relative to the PyTorch reference")
    write("of copy: bandwidth of the minimal traffic (inputs read, outputs written once), relative to that of a copy")
    write("")
    for line in table(report.rows):
        write(line)
