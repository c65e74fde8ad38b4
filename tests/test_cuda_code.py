"""What nvcc made of the CUDA kernels: registers, shared memory, spills, and the loads and stores that their speed
rests on. Read from the package's own library, without a GPU."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from task_aware.ops import _extension, _sources

CHECKOUT = Path(__file__).resolve().parents[1]
ARCHITECTURES = ("sm_80", "sm_90", "sm_120")


class Limits(NamedTuple):
    """`registers` of a thread, bytes of static `shared` memory, bytes of `stack`: what is spilled, and local arrays."""

    registers: int
    shared: int = 0
    stack: int = 0


# The first pattern that matches a kernel's name. Registers are those that leave as many threads on a
# multiprocessor: 64 of them fit 1024 threads, 80 fit 768, 128 fit 512, 168 fit 384, 255 fit 256.
LIMITS = {
    r"assignment_kernel<": Limits(80, 17824),
    r"pair_costs_kernel<2, double, 5": Limits(128, 1600, stack=16),  # bce, whose float64 logarithms spill
    r"pair_costs_kernel<": Limits(128, 1600),
    r"backward_kernel<": Limits(64),
    r"reorder_(forward|backward)_kernel<": Limits(64),
    r"maximum_kernel<": Limits(48, 2048),
    r"features_kernel<": Limits(64),
    r"gradient_kernel<float": Limits(64),
    r"gradient_kernel<": Limits(128),
    r"tied_kernel<": Limits(128, 2048),
    r"mel_spectrogram_kernel<RegisterFft<float": Limits(80),
    r"mel_spectrogram_kernel<RegisterFft<double": Limits(168),
    r"mel_spectrogram_by_definition_kernel<": Limits(64, stack=8),  # what a float64 root calls
    r"envelope_kernel<": Limits(32),
    r"spectra_kernel<RegisterFft<float": Limits(64),
    r"spectra_kernel<RegisterFft<double": Limits(128),
    r"sources_kernel<RegisterFft<float": Limits(128, stack=8),
    r"sources_kernel<RegisterFft<double": Limits(168, stack=8),
    r"mask_gradient_kernel<RegisterFft<float": Limits(80),
    r"mask_gradient_kernel<RegisterFft<double": Limits(128),
    r"response_kernel<RegisterFft<float": Limits(64),
    r"response_kernel<RegisterFft<double": Limits(128),
    r"mix_kernel<RegisterFft<float": Limits(128),
    r"mix_kernel<RegisterFft<double": Limits(255),
    r"glu_pool_(backward_)?kernel<": Limits(128),
    r"glu_pool_mma_(backward_)?kernel<\d, \d+, float": Limits(128),
    r"glu_pool_mma_(backward_)?kernel<": Limits(80),
    r"fragments_kernel<": Limits(32),
    r"conv_glu_pool_(backward_)?kernel<double": Limits(255, 3584),
    r"conv_glu_pool_(backward_)?kernel<": Limits(168, 1792),
    r"conv_glu_pool_join_kernel<": Limits(32),
    r"depthwise_prelu_kernel<": Limits(64),
    r"depthwise_prelu_backward_kernel<": Limits(128),
    r"depthwise_prelu_sums_kernel<": Limits(48, 2048),
    r"gru_pack_kernel<": Limits(40),
    r"gru_(scan|scan_backward|factors)_kernel<": Limits(128),
}


class Kernel(NamedTuple):
    """A kernel compiled for an architecture."""

    architecture: str
    name: str  # such as reorder_forward_kernel<float, 4>
    symbol: str
    registers: int
    shared: int
    stack: int


def find_tool() -> Path | None:
    """cuobjdump beside nvcc, on PATH, or in triton, which comes with torch on Linux."""
    folders = [f"{os.environ['CUDA_HOME']}/bin"] if "CUDA_HOME" in os.environ else []
    folders += os.environ.get("PATH", "").split(os.pathsep)
    try:
        import triton
    except ImportError:
        pass
    else:
        folders.append(str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin"))
    found = shutil.which("cuobjdump", path=os.pathsep.join(folders))
    return Path(found) if found else None


@pytest.fixture(scope="session")
def library() -> Path:
    """`_cuda.so` of exactly these sources."""
    extension = _extension.extension
    if extension.folder is None or not (extension.folder / "_cuda.so").is_file():
        pytest.skip("no CUDA kernels were built")
    if extension.build["sources"] != _sources.sources_digest(CHECKOUT / "csrc"):
        pytest.skip(f"{extension.folder} was built from other sources than this csrc/; run `pip install .`")
    if find_tool() is None or shutil.which("c++filt") is None:
        pytest.skip("cuobjdump and c++filt are needed to read the machine code")
    return extension.folder / "_cuda.so"


def dump(library: Path, *options: str) -> str:
    command = [str(find_tool()), *options, str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def short_names(symbols: list[str]) -> list[str]:
    answer = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True)
    names = re.sub(
        r"\(task_aware::PitKind\)|task_aware::|c10::|\(anonymous namespace\)::|^void ", "", answer.stdout, flags=re.M
    )
    return [re.sub(r"\([^()]*\)$", "", name) for name in names.splitlines()]


@cache
def kernels_of(library: Path) -> list[Kernel]:
    found = []
    for part in dump(library, "-res-usage").split("arch = ")[1:]:
        architecture = part.split()[0]
        rows = re.findall(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", part)
        # From sm_90 on 1024 bytes are the system's.
        reserved = 1024 if int(architecture[3:]) >= 90 else 0
        for (symbol, *numbers), name in zip(rows, short_names([row[0] for row in rows]), strict=True):
            registers, stack, shared = map(int, numbers)
            found.append(Kernel(architecture, name, symbol, registers, max(shared - reserved, 0), stack))
    return found


@pytest.fixture(params=ARCHITECTURES)
def kernels(request: pytest.FixtureRequest, library: Path) -> list[Kernel]:
    """All of one architecture."""
    kernels = [kernel for kernel in kernels_of(library) if kernel.architecture == request.param]
    if not kernels:
        built = _extension.extension.build["architectures"]
        pytest.skip(f"the library holds code for {built}, none for {request.param}")
    return kernels


def instructions(library: Path, kernels: list[Kernel]) -> dict[str, list[str]]:
    """By the name of each, all of one architecture: its instructions by their addresses, such as LDG.E.128."""
    names = {kernel.symbol: kernel.name for kernel in kernels}
    text = dump(library, "-arch", kernels[0].architecture, "-sass", "-fun", ",".join(names))
    parts = re.split(r"Function : (\S+)", text)[1:]
    instruction = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)")
    return {names[symbol]: instruction.findall(code) for symbol, code in zip(parts[::2], parts[1::2], strict=True)}


def limits_of(name: str) -> Limits | None:
    return next((limits for pattern, limits in LIMITS.items() if re.match(pattern, name)), None)


def test_every_kernel_stays_within_its_limits(kernels: list[Kernel]) -> None:
    unknown = sorted({kernel.name for kernel in kernels if limits_of(kernel.name) is None})
    assert not unknown, (
        f"LIMITS in {Path(__file__).name} has no row for {', '.join(unknown)}; "
        "add a pattern with the registers, shared memory and stack that it may take."
    )
    beyond = [
        f"{kernel.name}: {kernel[3:]}, expected at most {tuple(limits)}"
        for kernel in kernels
        if (limits := limits_of(kernel.name)) and any(a > b for a, b in zip(kernel[3:], limits, strict=True))
    ]
    assert not beyond, "registers, shared memory, stack of " + "; ".join(beyond)


def test_no_row_of_the_limits_is_without_a_kernel(library: Path) -> None:
    names = {kernel.name for kernel in kernels_of(library)}
    first = {next((p for p in LIMITS if re.match(p, name)), None) for name in names}
    assert [pattern for pattern in LIMITS if pattern not in first] == []


GROUPS = r"(float, 4|double, 2|BFloat16, 8)"  # types and how many of them are 16 bytes


@pytest.mark.parametrize(
    ("pattern", "others"),
    [
        (rf"backward_kernel<\d, {GROUPS}>", 0),
        (rf"reorder_(forward|backward)_kernel<{GROUPS}>", 0),
        (rf"features_kernel<{GROUPS}, ", 1),  # the row's maximum
        (rf"gradient_kernel<{GROUPS}, ", 2),  # a warp's gradient held and its ties
    ],
    ids=["pit_loss_backward", "reorder", "features", "gradient"],
)
def test_groups_are_stored_by_one_instruction(library: Path, kernels: list[Kernel], pattern: str, others: int) -> None:
    chosen = [kernel for kernel in kernels if re.match(pattern, kernel.name)]
    assert len({re.search(GROUPS, kernel.name)[0] for kernel in chosen}) == 3  # type: ignore[index]
    for name, code in instructions(library, chosen).items():
        stores = [operation for operation in code if operation.startswith("STG")]
        whole = [operation for operation in stores if ".128" in operation]
        assert whole and len(stores) - len(whole) <= others, f"{name}: {stores}"


def test_pair_costs_reads_ahead_and_scatters_its_sums(library: Path, kernels: list[Kernel]) -> None:
    # snr has mse's; si_sdr (4) sums in float64.
    chosen = [kernel for kernel in kernels if re.match(r"pair_costs_kernel<[0-2], float, 5, 4>", kernel.name)]
    assert len(chosen) == 3
    for name, code in instructions(library, chosen).items():
        first_use = next(k for k, operation in enumerate(code) if operation.startswith(("FADD", "FMUL", "FFMA")))
        assert [operation for operation in code[:first_use] if operation.startswith("LDG")] == ["LDG.E.128"] * 10, name
        # 13 exchanges of float32, then 7 + 4 + 2 + 1 of float64, which take two each.
        assert sum(operation.startswith("SHFL") for operation in code) == 13 + 2 * 14, name


def test_glu_pool_multiplies_on_tensor_cores(library: Path, kernels: list[Kernel]) -> None:
    chosen = [kernel for kernel in kernels if kernel.name.startswith("glu_pool_mma_")]
    assert len(chosen) == 12  # three shapes of a block, two dtypes, forward and backward
    for name, code in instructions(library, chosen).items():
        wanted = "HMMA.16816.F32.BF16" if "BFloat16" in name else "HMMA.1688.F32.TF32"
        products = {operation for operation in code if "MMA" in operation}
        assert products == {wanted}, name


def test_depthwise_prelu_reads_a_row_before_it_stores_any_of_it(library: Path, kernels: list[Kernel]) -> None:
    chosen = [kernel for kernel in kernels if re.match(r"depthwise_prelu_(backward_)?kernel<true, ", kernel.name)]
    assert len(chosen) == 6  # three dtypes, forward and backward
    for name, code in instructions(library, chosen).items():
        first_store = next(k for k, operation in enumerate(code) if operation.startswith("STS"))
        rows = 2 if "backward" in name else 1
        assert code[:first_store].count("LDG.E.128") == 5 * rows, name
        assert any(operation.startswith("STG.E.128") for operation in code), name


@pytest.mark.parametrize(("width", "reads"), [(128, 24), (64, 12)])
def test_gru_scan_keeps_its_weight_in_registers(library: Path, kernels: list[Kernel], width: int, reads: int) -> None:
    """A weight is read 16 bytes at once and once alone; nothing else is in such pieces."""
    chosen = [
        kernel for kernel in kernels if re.match(rf"gru_(scan|scan_backward|factors)_kernel<{width},", kernel.name)
    ]
    assert len(chosen) == 6
    for name, code in instructions(library, chosen).items():
        assert sum(operation == "LDG.E.128" for operation in code) == reads, name
        assert sum(operation.startswith("FFMA") for operation in code) >= 4 * reads, name
