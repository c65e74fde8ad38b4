"""PEP 517 backend: setuptools, and torch as a build requirement only where the target environment has none.

pip builds in an isolated environment but runs it with the target environment's Python. That Python, asked
without the isolation, tells where the target's own torch lies; its headers are all that the build needs.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "find_torch",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
    "target_torch",
    "torch_version",
]

ROOT = Path(__file__).resolve().parents[1]
TORCH_REQUIREMENT = "torch>=2.11,<2.15"
TORCH_RANGE = ((2, 11), (2, 15))

_ASK_TARGET = """
import importlib.util, sys, sysconfig
spec = importlib.util.find_spec("torch")
print(spec.origin if spec and spec.origin else "")
"""


def torch_version(folder: Path) -> str | None:
    """The version of the torch package in ``folder``, read without importing it; None where there is none."""
    try:
        text = (folder / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    has_headers = (folder / "include" / "torch" / "csrc" / "stable" / "library.h").is_file()
    return found[1] if found and has_headers else None


def is_supported(version: str | None) -> bool:
    """Whether a torch of this version is one that the package allows and the kernels build against."""
    numbers = re.match(r"(\d+)\.(\d+)", version or "")
    return numbers is not None and TORCH_RANGE[0] <= (int(numbers[1]), int(numbers[2])) < TORCH_RANGE[1]


def target_torch() -> Path | None:
    """The folder of a fitting torch in the environment installed into, seen past any build isolation."""
    answer = subprocess.run([sys.executable, "-E", "-c", _ASK_TARGET], capture_output=True, text=True, cwd=ROOT)
    origin = answer.stdout.strip()
    if answer.returncode == 0 and origin and is_supported(torch_version(Path(origin).parent)):
        return Path(origin).parent
    return None


def find_torch() -> Path:
    """The folder of the torch package to build against: the build environment's own, else the target's."""
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.origin is not None and is_supported(torch_version(Path(spec.origin).parent)):
        return Path(spec.origin).parent
    folder = target_torch()
    if folder is None:
        raise SystemExit(f"task_aware: no fitting torch to build against; install '{TORCH_REQUIREMENT}' first.")
    return folder


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    requirements = build_meta.get_requires_for_build_wheel(config_settings)
    return requirements if target_torch() else [*requirements, TORCH_REQUIREMENT]


get_requires_for_build_editable = get_requires_for_build_wheel


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    # setuptools packs whatever an earlier build left in build/lib*, files deleted since included.
    for stale in (ROOT / "build").glob("lib*"):
        shutil.rmtree(stale, ignore_errors=True)
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
