"""Fixtures of the operators' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from cuda_host.compiling import MissingTool, shared_folder
from cuda_host.emulation import Emulation

from task_aware.ops import _extension

# What is asked on a GPU alone, by file and name, and why; tests with a mark of their own and those too slow emulated.
LEFT_TO_A_CARD = {
    "test_gru_scan.py::test_cuda_graph_repeats_the_same_bits": "records a CUDA graph",
    "test_mask_resynthesis.py::test_cuda_graph_repeats_the_same_bits": "records a CUDA graph",
    "test_mel_mask.py::test_cuda_graph_repeats_the_same_bits": "records a CUDA graph",
    "test_mel_spectrogram.py::test_cuda_graph_repeats_the_same_bits": "records a CUDA graph",
    "test_pit_classes.py::test_is_captured_in_a_cuda_graph_without_synchronising": "records a CUDA graph",
    "test_pit_loss.py::test_gradients_too_large_for_the_caches": (
        "6 million elements, up to 12 s a case; that size only matters for CPU caches"
    ),
    "test_pit_loss.py::test_is_captured_in_a_cuda_graph_without_synchronising": "records a CUDA graph",
    "test_reverb_mix.py::test_cuda_graph_repeats_the_same_bits": "records a CUDA graph",
}


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Emulation:
    """The CUDA operators on the host; skips where the machine lacks what it takes."""
    try:
        return Emulation(shared_folder(tmp_path_factory, "emulation"))
    except MissingTool as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=["cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """All kernels that a test should hold: of the CPU, of CUDA on the host, of CUDA; skips where they are not there."""
    extension = _extension.extension
    if request.param != "cuda" and not extension.cpu:
        pytest.skip(f"no CPU kernels: {extension.cpu_absent}")
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA GPU here")
        if not extension.cuda:
            pytest.skip(f"no CUDA kernels: {extension.cuda_absent}")
    if request.param == "emulated":
        if reason := LEFT_TO_A_CARD.get(f"{request.node.path.name}::{request.node.originalname}"):
            pytest.skip(f"left to a GPU: {reason}")
        if request.node.callspec.params.get("backend") == "reference":
            pytest.skip("the reference runs no kernels")
        with request.getfixturevalue("emulation").installed():
            yield request.param
    else:
        yield request.param


@pytest.fixture
def device(kernels: str) -> str:
    """Where the tensors of these kernels lie."""
    return "cuda" if kernels == "cuda" else "cpu"
