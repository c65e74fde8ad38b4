"""The setuptools command that runs CMake: `_C` and, with CUDA, `_cuda` land in the package's `ops` folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
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

        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_MAKE_PROGRAM": tool("ninja"),
            "CMAKE_INSTALL_PREFIX": destination,
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11_folder(),
            "TASK_AWARE_TORCH": torch_folder,
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
            options["CMAKE_CUDA_COMPILER"] = plan.nvcc
            options["CMAKE_CUDA_ARCHITECTURES"] = ";".join(parse_architectures(plan.architectures))
        cmake = tool("cmake")
        define = [f"-D{name}={value}" for name, value in options.items()]
        self.call([cmake, "-G", "Ninja", "-S", str(ROOT), "-B", str(binary), *define])
        jobs = ["-j", os.environ["MAX_JOBS"]] if os.environ.get("MAX_JOBS") else []
        self.call([cmake, "--build", str(binary), *jobs])
        for old in [*destination.glob("_C.*.so"), destination / "_cuda.so"]:
            old.unlink(missing_ok=True)
        self.call([cmake, "--install", str(binary), "--strip"])
        print(summary(plan, torch), flush=True)

    def call(self, command: list[str]) -> None:
        if subprocess.run(command).returncode != 0:
            raise BuildError(f"`{Path(command[0]).name} {' '.join(command[1:3])} ...` failed; its output stands above.")

    def get_outputs(self) -> list[str]:
        folder = Path(self.build_lib) / "task_aware" / "ops"
        return [str(path) for path in sorted(folder.glob("*.so"))]

    def get_output_mapping(self) -> dict[str, str]:
        return {}
