"""The build's decisions: where torch lies, whether CUDA is built and for which GPUs, and what is said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from setuptools import Distribution

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / "build_backend"))

import cuda_toolkit  # noqa: E402
import native_build  # noqa: E402
import task_aware_build  # noqa: E402

FakeNvcc = Callable[..., Path]


@pytest.fixture
def fake_nvcc(tmp_path: Path) -> FakeNvcc:
    """A shell script that answers like nvcc of some version, and compiles or not."""

    def make(
        release: str = "13.0", compiles: bool = True, folder: str = "cuda", newest: tuple[int, ...] = (100, 120)
    ) -> Path:
        path = tmp_path / folder / "bin" / "nvcc"
        path.parent.mkdir(parents=True)
        path.write_text(
            "#!/bin/sh\n"
            'case "$*" in\n'
            f"  *--version*) echo 'Cuda compilation tools, release {release}, V{release}.88';;\n"
            f"  *--list-gpu-arch*) printf 'compute_%s\\n' {' '.join(map(str, (80, 90, *newest)))};;\n"
            f"  *) {'exit 0' if compiles else 'echo fatal error: unsupported host compiler >&2; exit 1'};;\n"
            "esac\n"
        )
        path.chmod(0o755)
        return path

    return make


def environment(nvcc: Path | None = None, **variables: str) -> dict[str, str]:
    return {"PATH": f"{nvcc.parent}:/nowhere" if nvcc else "/nowhere", **variables}


def test_nvcc_on_the_path_is_used_for_the_default_architectures(fake_nvcc: FakeNvcc) -> None:
    nvcc = fake_nvcc()
    plan = cuda_toolkit.plan_cuda(environment(nvcc))
    assert plan == cuda_toolkit.CudaPlan(nvcc, "13.0", "8.0;9.0+PTX;12.0")
    old = fake_nvcc("12.4", folder="old", newest=())
    assert cuda_toolkit.plan_cuda(environment(old)).architectures == "8.0;9.0+PTX"


def test_cuda_home_goes_before_the_path(fake_nvcc: FakeNvcc) -> None:
    home, other = fake_nvcc(folder="home"), fake_nvcc(folder="other")
    plan = cuda_toolkit.plan_cuda(environment(other, CUDA_HOME=str(home.parents[1])))
    assert plan.nvcc == home


@pytest.mark.parametrize(
    ("release", "compiles", "reason"),
    [
        ("11.8", True, "is of CUDA 11.8 and 12.0 or newer is needed"),
        ("13.0", False, "unsupported host compiler"),
    ],
)
def test_an_unfit_nvcc_is_a_reason_or_an_error(fake_nvcc: FakeNvcc, release: str, compiles: bool, reason: str) -> None:
    nvcc = fake_nvcc(release, compiles)
    plan = cuda_toolkit.plan_cuda(environment(nvcc))
    assert plan.nvcc is None and reason in plan.absent
    with pytest.raises(SystemExit, match=reason):
        cuda_toolkit.plan_cuda(environment(nvcc, TASK_AWARE_CUDA="1"))


def test_cuda_asked_for_without_nvcc_is_one_sentence() -> None:
    with pytest.raises(SystemExit) as caught:
        cuda_toolkit.plan_cuda(environment(TASK_AWARE_CUDA="1"))
    message = str(caught.value)
    assert message.startswith("task_aware: TASK_AWARE_CUDA=1 asks for the CUDA kernels, but there is no nvcc")
    assert "\n" not in message and ". " not in message


def test_the_whole_build_stops_with_that_sentence(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--build-lib", tmp_path, "--build-temp", tmp_path],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        env={**os.environ, "TASK_AWARE_CUDA": "1", "PATH": "/nowhere", "CUDA_HOME": ""},
    )
    assert answer.returncode != 0
    assert answer.stderr.strip().splitlines()[-1].startswith("task_aware: TASK_AWARE_CUDA=1 asks")


def test_cuda_can_be_left_out(fake_nvcc: FakeNvcc) -> None:
    plan = cuda_toolkit.plan_cuda(environment(fake_nvcc(), TASK_AWARE_CUDA="0"))
    assert plan.nvcc is None and plan.absent == "TASK_AWARE_CUDA=0"
    assert cuda_toolkit.plan_cuda(environment()).absent == "no nvcc in CUDA_HOME or on PATH"
    with pytest.raises(SystemExit, match="TASK_AWARE_CUDA is 'yes', expected auto, 0 or 1"):
        cuda_toolkit.plan_cuda(environment(TASK_AWARE_CUDA="yes"))


@pytest.mark.parametrize(
    ("text", "cmake"),
    [
        ("8.0;9.0+PTX", ["80-real", "90"]),
        ("8.0 9.0", ["80-real", "90-real"]),
        ("9.0a, 10.0+PTX", ["90a-real", "100"]),
        ("8.0;9.0+PTX;12.0", ["80-real", "90", "120-real"]),
    ],
)
def test_architectures_as_cmake_writes_them(text: str, cmake: list[str]) -> None:
    assert cuda_toolkit.parse_architectures(text) == cmake


def test_unknown_architectures_name_the_choice(fake_nvcc: FakeNvcc) -> None:
    nvcc = fake_nvcc()
    with pytest.raises(SystemExit, match="'Hopper', expected numbers"):
        cuda_toolkit.plan_cuda(environment(nvcc, TORCH_CUDA_ARCH_LIST="Hopper"))
    with pytest.raises(SystemExit, match=r"sm_75, which .* lacks; choose among 8\.0, 9\.0, 10\.0, 12\.0"):
        cuda_toolkit.plan_cuda(environment(nvcc, TORCH_CUDA_ARCH_LIST="7.5;8.0"))


def test_the_build_ends_with_what_was_built(fake_nvcc: FakeNvcc) -> None:
    plan = cuda_toolkit.plan_cuda(environment(fake_nvcc()))
    line = native_build.summary(plan, "2.13.0+cpu")
    assert line == "task_aware: built CPU and CUDA 13.0 kernels (8.0, 9.0+PTX, 12.0) against torch 2.13.0+cpu"
    line = native_build.summary(cuda_toolkit.plan_cuda(environment()), "2.13.0")
    assert line == (
        "task_aware: built CPU kernels against torch 2.13.0; no CUDA kernels: no nvcc in CUDA_HOME or on PATH"
    )


def write_torch(site: Path, version: str, headers: bool = True) -> Path:
    folder = site / "torch"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('the build must not import torch')\n")
    (folder / "version.py").write_text(f"__version__ = '{version}'\ncuda = None\n")
    if headers:
        header = folder / "include/torch/csrc/stable/library.h"
        header.parent.mkdir(parents=True)
        header.touch()
    return folder


@pytest.mark.parametrize(
    ("version", "supported"),
    [("2.11.0", True), ("2.14.1+cu130", True), ("2.13.0+cpu", True), ("2.10.2", False), ("2.15.0", False)],
)
def test_torch_is_read_without_importing_it(tmp_path: Path, version: str, supported: bool) -> None:
    assert task_aware_build.torch_version(tmp_path / "torch") is None
    folder = write_torch(tmp_path, version)
    assert task_aware_build.torch_version(folder) == version
    assert task_aware_build.is_supported(version) is supported


def test_torch_without_headers_does_not_count(tmp_path: Path) -> None:
    assert task_aware_build.torch_version(write_torch(tmp_path, "2.14.0", headers=False)) is None


@pytest.fixture
def bare_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh environment whose Python the backend believes to run under; returns its site-packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    monkeypatch.setattr(task_aware_build.sys, "executable", str(python))
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())


@pytest.mark.parametrize("hook", ["get_requires_for_build_wheel", "get_requires_for_build_editable"])
def test_torch_is_required_only_where_the_target_has_none(bare_python: Path, hook: str) -> None:
    requires = getattr(task_aware_build, hook)
    assert task_aware_build.TORCH_REQUIREMENT in requires()
    folder = write_torch(bare_python, "2.13.0+cpu")
    assert [name for name in requires() if name.startswith("torch")] == []
    assert task_aware_build.target_torch() == folder


def test_a_torch_too_old_is_required_anew(bare_python: Path) -> None:
    write_torch(bare_python, "2.9.1")
    assert task_aware_build.TORCH_REQUIREMENT in task_aware_build.get_requires_for_build_wheel()


def test_the_targets_torch_is_found_past_build_isolation(
    bare_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip isolates by PYTHONPATH; what lies there is not the target's."""
    write_torch(tmp_path / "overlay", "2.14.0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "overlay"))
    assert task_aware_build.target_torch() is None


def test_a_second_install_of_the_same_sources_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "csrc").mkdir()
    source = tmp_path / "csrc" / "op.cpp"
    source.write_text("// one")
    (tmp_path / "CMakeLists.txt").write_text("project(task_aware)")
    (tmp_path / "task_aware/ops").mkdir(parents=True)
    shutil.copy(CHECKOUT / "task_aware/ops/_sources.py", tmp_path / "task_aware/ops")
    monkeypatch.setattr(native_build, "ROOT", tmp_path)
    monkeypatch.setattr(native_build, "find_torch", lambda: tmp_path)
    monkeypatch.setattr(native_build, "torch_version", lambda _: "2.14.0")
    monkeypatch.setenv("TASK_AWARE_CUDA", "0")
    compiled = []

    def compile_it(self, decisive, torch_folder, binary, destination):
        compiled.append(destination)
        (destination / "_C.so").write_text(f"library {len(compiled)}")

    monkeypatch.setattr(native_build.NativeBuild, "compile", compile_it)

    def install(name: str, **environment: str) -> str:
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        command = native_build.NativeBuild(Distribution({"name": "task_aware", "version": "1"}))
        command.build_lib, command.build_temp = str(tmp_path / name), str(tmp_path / "temporary")
        command.inplace = False
        command.run()
        return (tmp_path / name / "task_aware/ops/_C.so").read_text()

    assert [install("first"), install("second")] == ["library 1", "library 1"]
    source.write_text("// two")
    assert install("third") == "library 2"
    assert install("fourth", CXXFLAGS="-O0") == "library 3"
    assert len(list((tmp_path / "build/native").iterdir())) == 1  # what is out of date goes
