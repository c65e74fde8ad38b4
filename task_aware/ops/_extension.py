"""Finds and loads the native libraries, and explains why one is not available.

`_C` (schemas, CPU kernels) and `_cuda` (CUDA kernels) are next to this file after an editable or a regular install.
In a checkout, Python imports the checkout's files while the libraries are in the installed package; they are found
there too, and compared with the checkout's sources.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import sysconfig
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch

from . import _sources

FOLDER = Path(__file__).resolve().parent
CSRC = FOLDER.parents[1] / "csrc"
BUILD_COMMAND = "pip install ."


@dataclass(frozen=True)
class Extension:
    """The libraries found. The reason why kernels are absent is a clause without a full stop."""

    cpu: bool = False
    cuda: bool = False
    folder: Path | None = None
    cpu_absent: str = ""
    cuda_absent: str = ""
    build: dict[str, str] = field(default_factory=dict)


def library_folders() -> list[Path]:
    """Folders that may hold the libraries: the one of this file, then those of the installed package."""
    folders = [FOLDER]
    for name in ("platlib", "purelib"):
        folders.append(Path(sysconfig.get_path(name)) / "task_aware" / "ops")
    folders += [Path(entry) / "task_aware" / "ops" for entry in sys.path if entry]
    return list(dict.fromkeys(folder.resolve() for folder in folders))


def find_library(folder: Path) -> Path | None:
    """Finds the `_C` for this Python in ``folder``."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"_C{suffix}"
        if path.is_file():
            return path
    return None


def choose_library(libraries: list[Path], csrc: Path) -> Path:
    """Chooses the first library built from exactly these sources, whose digest it contains, else the first one."""
    if csrc.is_dir() and len(libraries) > 1:
        digest = _sources.sources_digest(csrc).encode()
        for library in libraries:
            if digest in library.read_bytes():
                return library
    return libraries[0]


def compare_with_checkout(build: dict[str, str], library: Path, csrc: Path) -> str:
    """Why libraries of this build cannot be used with the checkout's sources; empty if they can.

    If only the sources differ and the schemas match, this warns: kernels may be out of date, but calls still match.
    """
    if not csrc.is_dir():
        return ""
    if build["schemas"] != _sources.schemas_digest(csrc):
        return f"{library} was built for other operators than those of this checkout; run `{BUILD_COMMAND}` again"
    if build["sources"] != _sources.sources_digest(csrc):
        warnings.warn(
            f"{library} was built from other sources than those in csrc/; run `{BUILD_COMMAND}` again.",
            RuntimeWarning,
            stacklevel=2,
        )
    return ""


def _import_module(path: Path) -> ModuleType:
    name = f"{__package__}._C"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
    return module


def _load_cuda(folder: Path, build: dict[str, str]) -> str:
    """Loads `_cuda`. Returns why it is not available; empty if it is."""
    path = folder / "_cuda.so"
    if build["cuda_absent"]:
        return f"it was built without them ({build['cuda_absent']})"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    if not path.is_file():
        return f"{path} is missing"
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return f"{path} cannot be loaded ({error})"
    return ""


def load() -> Extension:
    """Finds and loads the available libraries; never raises."""
    libraries = [path for path in map(find_library, library_folders()) if path is not None]
    if not libraries:
        reason = "the native library was not built"
        return Extension(cpu_absent=reason, cuda_absent=reason)
    path = choose_library(libraries, CSRC)
    folder = path.parent
    try:
        build = dict(_import_module(path).build_info())
    except ImportError as error:
        reason = f"{path} cannot be loaded ({error})"
        return Extension(cpu_absent=reason, cuda_absent=reason)
    if reason := compare_with_checkout(build, path, CSRC):
        return Extension(folder=folder, cpu_absent=reason, cuda_absent=reason, build=build)
    cuda_absent = _load_cuda(folder, build)
    return Extension(cpu=True, cuda=not cuda_absent, folder=folder, cuda_absent=cuda_absent, build=build)


extension = load()
