"""What the emulated CUDA operators stand for: that they serve, that they leave, and what they notice."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cuda_host.compiling import CSRC
from cuda_host.emulation import Emulation

from task_aware import ops
from task_aware.ops import _extension

from .accuracy import error
from .conftest import LEFT_TO_A_CARD

pytestmark = pytest.mark.skipif(not _extension.extension.cpu, reason="no CPU kernels")

OUTSIDE = torch.zeros(1, 2, 4), torch.tensor([[0, 7]])  # an error on the CPU, NaN on CUDA


def test_the_cpu_kernels_serve_again_afterwards(emulation: Emulation) -> None:
    deterministic = torch.are_deterministic_algorithms_enabled()
    for _ in range(2):
        with emulation.installed():
            assert ops.reorder(*OUTSIDE).isnan().all(-1).tolist() == [[False, True]]
        with pytest.raises(RuntimeError, match=r"holds 7 at \[0,1\]"):
            ops.reorder(*OUTSIDE)
        with pytest.raises(ZeroDivisionError), emulation.installed():
            raise ZeroDivisionError
        with pytest.raises(RuntimeError, match=r"holds 7 at \[0,1\]"):
            ops.reorder(*OUTSIDE)
    assert torch.are_deterministic_algorithms_enabled() == deterministic


def test_every_operator_with_cuda_kernels_is_emulated(emulation: Emulation) -> None:
    for name in emulation.names:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"task_aware_emulated::{name}", "CPU")
    assert {name.removesuffix("_backward") for name in emulation.names} == {x.stem for x in CSRC.glob("cuda/*.cu")}


# One place for all rows of the forward; a barrier in the backward that only some threads reach.
FAULTS = [
    ("row * p.N + n, groups[g]);", "n, groups[g]);"),
    ("[kCount] = {};", "[kCount] = {}; if (threadIdx.x < 3) __syncthreads();"),
]


@pytest.fixture(scope="module")
def faulty(emulation: Emulation, tmp_path_factory: pytest.TempPathFactory) -> Emulation:
    folder = tmp_path_factory.mktemp("faulty")
    text = (CSRC / "cuda" / "reorder.cuh").read_text()
    for sound, fault in FAULTS:
        assert sound in text, f"reorder.cuh no longer holds {sound!r}: plant this fault elsewhere"
        text = text.replace(sound, fault)
    (folder / "cuda").mkdir()
    (folder / "cuda" / "reorder.cuh").write_text(text)
    return Emulation(folder, [CSRC / "cuda" / "reorder.cu"], library="task_aware_faulty", first=folder)


def test_what_is_not_written_is_nan_and_the_schedule_is_that_chosen(faulty: Emulation) -> None:
    rows, permutation = torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[0, 1, 2]])
    results = []
    for schedule in (0, 1):
        faulty.choose_schedule(schedule)
        with faulty.installed():
            results.append(ops.reorder(rows, permutation).flatten())
    assert [float(result[0]) for result in results] == [3.0, 1.0]  # of the block that ran last
    assert all(result[1:].isnan().all() for result in results)


def test_a_kernel_that_cannot_go_on_is_an_error_and_the_next_call_runs(faulty: Emulation) -> None:
    rows, permutation = torch.zeros(1, 2, 2, requires_grad=True), torch.tensor([[0, 1]])
    faulty.choose_schedule(0)
    with faulty.installed():
        result = ops.reorder(rows, permutation).sum()
        with pytest.raises(RuntimeError, match="only 3 of 256 threads came to this __syncthreads") as caught:
            result.backward()
        assert re.search(r"in reorder_backward_kernel, schedule 0, block \(0,0,0\), thread 0", str(caught.value))
        assert ops.reorder(rows, permutation)[0, 0].tolist() == [0.0, 0.0]


@pytest.fixture(params=[90, 86, 75], ids=lambda architecture: f"sm_{architecture}")
def gpu(request: pytest.FixtureRequest, emulation: Emulation) -> Iterator[None]:
    """Where the launch of a block that asks for more shared memory is an error, and sm_75 has no tensor cores."""
    with emulation.gpu(request.param), emulation.installed():
        yield


def test_reverb_mix_takes_the_shared_memory_that_there_is(gpu: None) -> None:
    torch.manual_seed(0)
    sources, rirs, gains = torch.randn(1, 1, 30000), torch.randn(1, 1, 2000), torch.ones(1, 1)
    wanted = ops.reverb_mix_reference(sources.double(), rirs.double(), gains.double()).images
    assert error(ops.reverb_mix(sources, rirs, gains, backend="native").images, wanted) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_detectors_front_end_runs_on_every_gpu(gpu: None, dtype: torch.dtype) -> None:
    waveform = torch.randn(1, 3000, generator=torch.Generator().manual_seed(0))
    mel = ops.mel_spectrogram(waveform.to(dtype), backend="native")
    assert error(mel, ops.mel_spectrogram_reference(waveform.double())) < 1e-6


def test_a_frame_too_long_for_a_gpu_is_named(emulation: Emulation) -> None:
    with emulation.gpu(75), emulation.installed():
        with pytest.raises(
            RuntimeError, match="n_fft is 16384, more than a block of this GPU can hold in its 65536 bytes"
        ):
            ops.mel_spectrogram(torch.zeros(1, 9000), n_fft=16384, backend="native")
        with pytest.raises(RuntimeError, match="n_fft is 32768, more than the CUDA kernels transform"):
            ops.mel_spectrogram(torch.zeros(1, 17000), n_fft=32768, backend="native")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_glu_pool_of_the_most_channels_runs_on_every_gpu(gpu: None, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    C = 128
    inputs = [torch.randn(1, C, 1, 40), torch.randn(C, C) / C**0.5, torch.randn(C)]
    doubles = [x.double().requires_grad_() for x in inputs]
    x, weight, bias = (x.to(dtype) for x in inputs)
    out, wanted = ops.glu_pool(x.requires_grad_(), weight, bias, (1, 2)), ops.glu_pool_reference(*doubles, (1, 2))
    assert error(out, wanted) < 2e-6
    assert error(*(torch.autograd.grad(y.sum(), leaf)[0] for y, leaf in ((out, x), (wanted, doubles[0])))) < 1e-5


@pytest.mark.parametrize("H", [64, 300])
def test_a_gru_runs_on_every_gpu(gpu: None, H: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((1, 2, 1, 3 * H), (1, 3 * H, H), (1, 3 * H))
    gates, weight, bias = (torch.randn(shape, generator=generator) for shape in shapes)
    weight /= H**0.5
    double, leaf = gates.double().requires_grad_(), gates.requires_grad_()
    out, wanted = ops.gru_scan(leaf, weight, bias), ops.gru_scan_reference(double, weight.double(), bias.double())
    assert error(out, wanted) < 2e-6
    assert error(*(torch.autograd.grad(y.sum(), x)[0] for y, x in ((out, leaf), (wanted, double)))) < 1e-5


def test_a_gru_too_large_for_a_gpu_is_named(emulation: Emulation) -> None:
    H = 800
    inputs = [torch.zeros(shape).double() for shape in ((1, 1, 1, 3 * H), (1, 3 * H, H), (1, 3 * H))]
    refused = pytest.raises(RuntimeError, match="800 units need 73216 bytes of shared memory, this GPU has 65536; use")
    with emulation.gpu(75), emulation.installed(), refused:
        ops.gru_scan(*inputs)


def test_what_is_left_to_a_gpu_is_written_down() -> None:
    """In the table, which names what there is, and in docs/cuda_host.md, which says the same."""
    folder = Path(__file__).parent
    tests = {}
    for path in folder.glob("test_*.py"):
        module = importlib.import_module(f".{path.stem}", __package__)
        tests |= {f"{path.name}::{name}": x for name, x in vars(module).items() if name.startswith("test_")}
    marked = {name for name, x in tests.items() if any(m.name == "gpu" for m in getattr(x, "pytestmark", []))}
    assert marked <= LEFT_TO_A_CARD.keys() <= tests.keys()
    document = (folder.parents[1] / "docs" / "cuda_host.md").read_text()
    assert dict(re.findall(r"^\| `(test_\w+\.py::\w+)` \| (.*) \|$", document, re.MULTILINE)) == LEFT_TO_A_CARD
