"""Finding and loading the native libraries, and what is said where one is absent."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from task_aware import info, ops
from task_aware.base.errors import BackendError
from task_aware.ops import _dispatch, _extension, _sources

CHECKOUT = Path(__file__).resolve().parents[2]
LIBRARIES = [
    path for path in (_extension.extension.folder or CHECKOUT).glob("*.so") if path.name.startswith(("_C", "_cuda"))
]
needs_library = pytest.mark.skipif(not LIBRARIES, reason="no native library was built")


class CudaTensor:
    """Stands in for a CUDA tensor where there is no GPU to make one on."""

    device = torch.device("cuda:0")


def without(monkeypatch: pytest.MonkeyPatch, **fields: object) -> None:
    monkeypatch.setattr(_extension, "extension", _extension.Extension(**fields))


def test_a_cuda_tensor_without_kernels_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    build = {"cuda_absent": "no nvcc in CUDA_HOME or on PATH", "architectures": ""}
    without(
        monkeypatch,
        cpu=True,
        folder=Path("/somewhere"),
        build=build,
        cuda_absent="it was built without them (no nvcc in CUDA_HOME or on PATH)",
    )
    with pytest.raises(BackendError) as caught:
        _dispatch.use_native("pit_loss", "auto", CudaTensor())  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.startswith("pit_loss: the tensors are on CUDA, but the CUDA kernels are not available")
    assert "no nvcc" in message and "`TASK_AWARE_CUDA=1 pip install .`" in message
    assert message.count(". ") == 0 and "\n" not in message


def test_a_cpu_tensor_without_a_library_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, cpu_absent="the native library was not built")
    estimates = torch.rand(1, 2, 3)
    for backend in ("auto", "native"):
        with pytest.raises(BackendError, match="was not built; build them with `pip install .`, or use"):
            ops.pit_loss(estimates, estimates, backend=backend)
    assert float(ops.pit_loss(estimates, estimates, backend="reference").loss) == 0.0


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        ("8.0;9.0+PTX", (8, 0), True),
        ("8.0;9.0+PTX", (8, 9), True),
        ("8.0;9.0+PTX", (9, 0), True),
        ("8.0;9.0+PTX", (12, 0), True),
        ("8.0;9.0+PTX", (7, 5), False),
        ("8.0", (9, 0), False),
        ("8.6", (8, 0), False),
        ("9.0a", (9, 0), True),
        ("9.0a", (10, 0), False),
        # the default: A100, L4, H100, B200, B300, Thor, GeForce 50, GB10
        *(
            ("8.0;9.0+PTX;12.0", capability, True)
            for capability in [(8, 0), (8, 9), (9, 0), (10, 0), (10, 3), (11, 0), (12, 0), (12, 1)]
        ),
        ("8.0;9.0+PTX;12.0", (7, 5), False),
        ("8.0;9.0;12.0+PTX", (10, 0), False),
        ("9.0;10.0", (10, 3), True),
        ("9.0;10.0", (12, 0), False),
        ("10.0f", (10, 3), True),
        ("10.0f+PTX", (12, 0), False),
        ("10.3f", (10, 0), False),
        ("10.0a", (10, 3), False),
        ("9.0a+PTX", (10, 0), False),
    ],
)
def test_which_gpus_a_build_runs_on(architectures: str, capability: tuple[int, int], runs: bool) -> None:
    assert _dispatch.runs_on(architectures, *capability) is runs


def test_a_gpu_that_no_code_fits_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, cpu=True, cuda=True, folder=Path("/somewhere"), build={"architectures": "8.0;9.0+PTX;12.0"})
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    _dispatch._check_architecture.cache_clear()
    with pytest.raises(BackendError) as caught:
        _dispatch.use_native("pit_loss", "auto", CudaTensor())  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.startswith("pit_loss: the GPU is sm_75, but the CUDA kernels were built for 8.0;9.0+PTX;12.0")
    assert "`TORCH_CUDA_ARCH_LIST=7.5 pip install .`" in message
    assert message.count(". ") == 0 and "\n" not in message


def write_sources(folder: Path, schema: str, comment: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "op.cpp").write_text(f'// {comment}\n  m.def(\n      "{schema[:5]}"\n      "{schema[5:]}");\n')
    return folder


def test_libraries_of_other_sources_warn_and_of_other_schemas_are_refused(tmp_path: Path) -> None:
    csrc = write_sources(tmp_path / "csrc", "op(Tensor a) -> Tensor")
    build = {"sources": _sources.sources_digest(csrc), "schemas": _sources.schemas_digest(csrc)}
    library = tmp_path / "_C.so"
    assert _extension.compare_with_checkout(build, library, csrc) == ""
    assert _extension.compare_with_checkout(build, library, tmp_path / "no checkout") == ""

    write_sources(csrc, "op(Tensor a) -> Tensor", comment="faster")
    with pytest.warns(RuntimeWarning, match="other sources"):
        assert _extension.compare_with_checkout(build, library, csrc) == ""

    write_sources(csrc, "op(Tensor a, int b) -> Tensor")
    assert "other operators" in _extension.compare_with_checkout(build, library, csrc)


@pytest.mark.parametrize("suffix", [".h", ".cpp", ".cu", ".cuh"])
def test_every_kind_of_source_is_in_the_digest(tmp_path: Path, suffix: str) -> None:
    csrc = write_sources(tmp_path / "csrc", "op(Tensor a) -> Tensor")
    before = _sources.sources_digest(csrc)
    (csrc / f"kernel{suffix}").touch()
    assert _sources.sources_digest(csrc) != before


def test_of_several_libraries_the_one_of_these_sources_is_taken(tmp_path: Path) -> None:
    csrc = write_sources(tmp_path / "csrc", "op(Tensor a) -> Tensor")
    stale, fresh = tmp_path / "stale.so", tmp_path / "fresh.so"
    stale.write_bytes(b"ELF other")
    fresh.write_bytes(b"ELF " + _sources.sources_digest(csrc).encode() + b"\0")
    assert _extension.choose_library([stale, fresh], csrc) == fresh
    assert _extension.choose_library([stale, fresh], tmp_path / "no checkout") == stale


def test_the_package_works_without_libraries(tmp_path: Path) -> None:
    """A copy of the Python files alone: import, info, references; kernels are refused with the reason."""
    ignore = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(CHECKOUT / "task_aware", tmp_path / "task_aware", ignore=ignore)
    script = (
        "import sys, sysconfig\n"
        "sysconfig.get_path = lambda name: sys.argv[1]\n"
        "import torch\n"
        "from task_aware import ops, info\n"
        "x = torch.rand(1, 2, 3)\n"
        "info.main([])\n"
        "print(ops.pit_loss(x, x, backend='reference').permutation.tolist())\n"
        "try:\n    ops.pit_loss(x, x)\nexcept Exception as error:\n    print(type(error).__name__)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    answer = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
    )
    if "in /" in answer.stdout and str(tmp_path) not in answer.stdout:
        pytest.skip("task_aware is installed on sys.path, where its libraries are found")
    assert answer.returncode == 0, answer.stderr
    assert "the native library was not built" in answer.stdout
    assert "[[0, 1]]" in answer.stdout and "BackendError" in answer.stdout


def test_info_tells_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    info.main([])
    text = capsys.readouterr().out
    for row in ("task_aware", "torch", "CPU kernels", "CUDA kernels", "CPU threads", "GPU"):
        assert f"\n{row} " in f"\n{text}"
    if _extension.extension.cpu:
        assert str(_extension.extension.folder) in text


@needs_library
@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name.split(".")[0])
def test_only_the_stable_abi_is_imported(library: Path) -> None:
    """What comes from libtorch is its C interface; no C++ symbol of at::, c10:: or torch:: is asked for."""
    answer = subprocess.run(["nm", "-DC", "--undefined-only", library], capture_output=True, text=True, check=True)
    symbols = [line.split(maxsplit=1)[1] for line in answer.stdout.splitlines()]
    assert any(symbol.startswith("aoti_torch_") for symbol in symbols)
    assert [symbol for symbol in symbols if any(name in symbol for name in ("at::", "c10::", "torch::"))] == []


@needs_library
@pytest.mark.skipif(shutil.which("torch-abi-audit") is None, reason="torch-abi-audit is not installed")
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda path: path.name.split(".")[0])
def test_torch_abi_audit_agrees(library: Path) -> None:
    answer = subprocess.run(["torch-abi-audit", "--check", "torch", library], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "Min torch:   2.11.0" in answer.stdout
