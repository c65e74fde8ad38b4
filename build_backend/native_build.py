"""The setuptools command that runs CMake: `_C` and, with CUDA, `_cuda` land in the package's `ops` folder."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from cuda_toolkit import BuildError, CudaPlan, parse_architectures, plan_cuda
from setuptools.command.build_ext import build_ext
from task_aware_build import ROOT, find_torch, torch_version


def load_sources_module():  # type: ignore[no-untyped-def]
    """task_aware/ops/_sources.py, loaded by path: the package itself needs torch to import."""
    spec = importlib.util.spec_from_file_location("_sources", ROOT / "task_aware" / "ops" / "_sources.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tool(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        raise BuildError(f"{name} is needed to build and is not on PATH; run `pip install {name}`.")
    return found


def pybind11_folder() -> str:
    try:
        import pybind11
    except ImportError as error:
        raise BuildError("pybind11 is needed to build and is not installed; run `pip install pybind11`.") from error
    return pybind11.get_cmake_dir()


def summary(plan: CudaPlan, torch: str) -> str:
    """The line that ends the build."""
    if plan.nvcc is None:
        return f"task_aware: built CPU kernels against torch {torch}; no CUDA kernels: {plan.absent}"
    architectures = plan.architectures.replace(";", ", ")
    return f"task_aware: built CPU and CUDA {plan.version} kernels ({architectures}) against torch {torch}"


def key_of(decisive: dict[str, str]) -> str:
    """A name for what is built from these options by this compiler for this Python."""
    compiler = shutil.which(os.environ.get("CXX", "c++")) or ""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout if compiler else ""
    flags = [os.environ.get(name, "") for name in ("CXXFLAGS", "CUDAFLAGS", "NVCC_APPEND_FLAGS", "NVCC_PREPEND_FLAGS")]
    script = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    parts = [*(f"{name}={value}" for name, value in decisive.items()), compiler, version, *flags, script]
    return hashlib.sha256("\0".join([*parts, str(sysconfig.get_config_var("EXT_SUFFIX"))]).encode()).hexdigest()[:16]


def keep(libraries: Path, folder: Path) -> None:
    """Keeps what was built in `folder`, whole or not at all, in place of what was kept before."""
    shutil.rmtree(folder.parent, ignore_errors=True)
    temporary = folder.with_name(f"{folder.name}.tmp")
    temporary.mkdir(parents=True)
    for library in libraries.glob("*.so"):
        shutil.copy2(library, temporary)
    temporary.replace(folder)


class NativeBuild(build_ext):
    """Configure, build and install with CMake, as TASK_AWARE_CUDA, TORCH_CUDA_ARCH_LIST and MAX_JOBS say."""

    def run(self) -> None:
        plan = plan_cuda(os.environ)
        torch_folder = find_torch()
        torch = torch_version(torch_folder) or ""
        sources = load_sources_module()
        binary = Path(self.build_temp).resolve() / "cmake"
        destination = (ROOT if self.inplace else Path(self.build_lib).resolve()) / "task_aware" / "ops"
        destination.mkdir(parents=True, exist_ok=True)

        decisive = {
            "CMAKE_BUILD_TYPE": "Release",
            "TASK_AWARE_TORCH_VERSION": torch,
            "TASK_AWARE_VERSION": self.distribution.get_version(),
            "TASK_AWARE_CUDA": "OFF" if plan.nvcc is None else "ON",
            "TASK_AWARE_CUDA_ABSENT": plan.absent.replace("\\", "/").replace('"', "'"),
            "TASK_AWARE_CUDA_VERSION": plan.version,
            "TASK_AWARE_ARCHITECTURES": plan.architectures,
            "TASK_AWARE_SOURCES_DIGEST": sources.sources_digest(ROOT / "csrc"),
            "TASK_AWARE_SCHEMAS_DIGEST": sources.schemas_digest(ROOT / "csrc"),
        }
        if plan.nvcc is not None:
            decisive["CMAKE_CUDA_COMPILER"] = plan.nvcc
            decisive["CMAKE_CUDA_ARCHITECTURES"] = ";".join(parse_architectures(plan.architectures))
        # pip builds in this folder too: a second `pip install` of the same sources has the libraries of the first.
        kept = ROOT / "build" / "native" / key_of(decisive)
        if self.inplace or not kept.is_dir():
            self.compile(decisive, torch_folder, binary, destination)
            if not self.inplace:
                keep(destination, kept)
        else:
            shutil.copytree(kept, destination, dirs_exist_ok=True)
            print(f"task_aware: nothing has changed since {kept} was built", flush=True)
        print(summary(plan, torch), flush=True)

    def compile(self, decisive: dict[str, str], torch_folder: Path, binary: Path, destination: Path) -> None:
        cmake = tool("cmake")
        places = {
            "CMAKE_MAKE_PROGRAM": tool("ninja"),
            "CMAKE_INSTALL_PREFIX": destination,
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11_folder(),
            "TASK_AWARE_TORCH": torch_folder,
        }
        define = [f"-D{name}={value}" for name, value in (decisive | places).items()]
        self.call([cmake, "-G", "Ninja", "-S", str(ROOT), "-B", str(binary), *define])
        jobs = ["-j", os.environ["MAX_JOBS"]] if os.environ.get("MAX_JOBS") else []
        self.call([cmake, "--build", str(binary), *jobs])
        for old in [*destination.glob("_C.*.so"), destination / "_cuda.so"]:
            old.unlink(missing_ok=True)
        self.call([cmake, "--install", str(binary), "--strip"])

    def call(self, command: list[str]) -> None:
        if subprocess.run(command).returncode != 0:
            raise BuildError(f"`{Path(command[0]).name} {' '.join(command[1:3])} ...` failed; its output stands above.")

    def get_outputs(self) -> list[str]:
        folder = Path(self.build_lib) / "task_aware" / "ops"
        return [str(path) for path in sorted(folder.glob("*.so"))]

    def get_output_mapping(self) -> dict[str, str]:
        return {}
