"""Planted faults: what the host run claims to find, it finds, and says where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from . import test_mel_mask, test_mel_spectrogram, test_pit_loss
from .compiling import CSRC, HERE, UnknownFeature, compile_program
from .conftest import Programs
from .running import Case, KernelError, Program

# Fault, build that finds it, what it says.
FAULTS = [
    ("load_past_the_end", "address", "heap-buffer-overflow"),
    ("store_before_the_beginning", "address", "heap-buffer-overflow"),
    ("static_shared_past_the_end", "address", "global variable 'shared'"),
    ("dynamic_shared_past_the_end", "address", "heap-buffer-overflow"),
    ("misaligned_vector", "address", "misaligned address"),
    ("integer_overflow", "address", "signed integer overflow"),
    ("missing_barrier", "plain", "a race: schedules 0 and 1 leave different results"),
    ("missing_barrier", "thread", "data race"),
    ("missing_barrier_of_a_warp", "plain", "a race: schedules 0 and 1 leave different results"),
    ("missing_barrier_of_a_warp", "thread", "data race"),
    ("a_shuffle_is_no_barrier", "thread", "data race"),
    ("blocks_at_one_place", "plain", "a race: schedules 0 and 1 leave different results"),
    ("barrier_for_a_few", "plain", "only 10 of 64 threads came to this __syncthreads"),
    ("absent_lane", "plain", "__shfl_xor_sync with mask 0xffffffff waits for lane 5, which has returned"),
    ("own_lane_not_in_mask", "plain", "__shfl_xor_sync with mask 0x0000ffff is called by lane 16"),
    ("source_lane_not_in_mask", "plain", "__shfl_sync reads lane 20, which is not in its mask"),
    ("too_many_threads", "plain", "a block of 2048 threads cannot be launched"),
]


@pytest.mark.parametrize(("fault", "build", "finding"), FAULTS)
def test_a_fault_is_found_with_its_kernel(programs: Programs, fault: str, build: str, finding: str) -> None:
    inputs = {"operation": fault, "in": torch.arange(64.0)}
    case = Case(fault, inputs, {"out": (torch.float32, (64,))})
    with pytest.raises(KernelError) as error:
        programs("faults", build).run([case], schedules=4)
    assert finding in str(error.value)
    assert f"cuda_host: in {fault}, schedule " in str(error.value)


# The same in the package's own kernels: file, what stands there, what takes its place, build, finding.
MUTANTS = [
    ("cuda/reorder.cuh", "if (n < N)", "if (n <= N)", "address", "heap-buffer-overflow"),
    ("cuda/vector.cuh", "bool aligned = row % kCount == 0;", "bool aligned = true;", "address", "misaligned address"),
    ("cuda/block_reduce.cuh", "__syncthreads();", "", "thread", "data race"),
    ("cuda/pit_loss.cuh", "void sync() const { __syncwarp(); }", "void sync() const {}", "thread", "data race"),
    ("common/assignment.h", "nearest(best);\n      lanes.sync();", "nearest(best);", "thread", "data race"),
    ("cuda/mel_spectrogram.cuh", "__syncthreads();\n  constexpr int kApart", "constexpr int kApart", "plain", "a race"),
]


def reorder_case() -> Case:
    inputs = {"operation": "forward", "dtype": "float32", "B": 1, "S": 2, "N": 33, "source": torch.randn(1, 2, 33)}
    return Case("reorder", inputs | {"permutation": torch.tensor([[1, 0]])}, {"result": (torch.float32, (1, 2, 33))})


def pit_loss_case(S: int = 4) -> Case:
    sources = test_pit_loss.Sources("pit_loss", torch.rand(1, S, 9), torch.rand(1, S, 9))
    return Case("pit_loss", test_pit_loss.inputs("forward", "mse", sources), test_pit_loss.outputs(sources))


# Program and a case for it, by the file that a fault is planted in.
CASES: dict[str, tuple[str, Callable[[], Case]]] = {
    "cuda/reorder.cuh": ("reorder", reorder_case),
    "cuda/vector.cuh": (
        "mel_mask",
        lambda: test_mel_mask.forward(test_mel_mask.sample_inputs(torch.float32, (2, 2, 7, 129))),
    ),
    "cuda/block_reduce.cuh": (
        "mel_mask",
        lambda: test_mel_mask.forward(test_mel_mask.sample_inputs(torch.float32, (1, 1, 4, 60))),
    ),
    "cuda/pit_loss.cuh": ("pit_loss", pit_loss_case),
    "common/assignment.h": ("pit_loss", lambda: pit_loss_case(6)),  # more than are tried one by one
    "cuda/mel_spectrogram.cuh": (
        "mel_spectrogram",
        lambda: test_mel_spectrogram.case(torch.randn(1, 700), {"n_fft": 512, "n_mels": 20}),
    ),
}


@pytest.mark.parametrize(("file", "old", "new", "build", "finding"), MUTANTS)
def test_a_fault_in_a_kernel_of_the_package_is_found(
    tmp_path: Path, programs: Programs, programs_folder: Path, file: str, old: str, new: str, build: str, finding: str
) -> None:
    text = (CSRC / file).read_text()
    assert old in text, f"{file} no longer holds {old!r}: plant this fault elsewhere"
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(text.replace(old, new, 1))
    kernel, case = CASES[file]
    programs(kernel, build).run([case()])  # the tool is here, and the kernel itself is sound
    mutant = Program(compile_program(HERE / "kernels" / f"{kernel}.cpp", build, programs_folder, first=tmp_path))
    with pytest.raises(KernelError) as error:
        mutant.run([case()], schedules=4)
    assert finding in str(error.value)
    assert "cuda_host: in " in str(error.value)


KERNEL = """
#include "cuda/launch.h"
__global__ void kernel(float* out) {{ {} }}
int main() {{}}
"""


@pytest.mark.parametrize(
    ("body", "feature"),
    [
        ("__nanosleep(100);", "__nanosleep"),
        ('asm volatile("membar.gl;");', "asm"),
        ("out[0] = clock64();", "clock64"),
        ("cudaTriggerProgrammaticLaunchCompletion();", "cudaTriggerProgrammaticLaunchCompletion"),
        ("extern __shared__ float shared[];", "extern __shared__"),
        ("kernel<<<1, 1>>>(out);", "<<<"),
        ("out[0] = erfcxf(out[1]);", "erfcxf"),
        ("float3 triple; out[0] = triple.x;", "float3"),
    ],
)
def test_an_unknown_feature_is_named(tmp_path: Path, body: str, feature: str) -> None:
    source = tmp_path / "unknown.cpp"
    source.write_text(KERNEL.format(body))
    with pytest.raises(UnknownFeature, match=f"{feature}.*does not know") as error:
        compile_program(source, "plain", tmp_path)
    assert "unknown.cpp" in str(error.value)


def test_an_unknown_header_is_named(tmp_path: Path) -> None:
    source = tmp_path / "unknown.cpp"
    source.write_text("#include <mma.h>\n" + KERNEL.format(""))
    with pytest.raises(UnknownFeature, match=r"<mma.h>, which the host run of CUDA kernels does not know"):
        compile_program(source, "plain", tmp_path)
