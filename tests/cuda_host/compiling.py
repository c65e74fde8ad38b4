"""Builds a program around a CUDA kernel's own source, for a machine without a GPU."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"

# What is checked: values and schedules; memory and arithmetic; the order of memory accesses.
BUILDS = {
    "plain": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DCUDA_HOST_ADDRESS"],
    "thread": ["-fsanitize=thread", "-DCUDA_HOST_THREAD"],
}
# What is counted (counting.h). Copies of small structures stay whole, as a GPU makes them.
COUNTS = {"counts": ["-fsanitize=thread", "-O0", "-DCUDA_HOST_COUNTS"]}
# Names that only CUDA, the compiler or the preprocessor may give a meaning.
RESERVED = re.compile(
    r"extern\s+__shared__|<<<|<\w+\.h>|<cuda/\w+>"
    r"|\b(?:__\w+|cuda[A-Z]\w*|cooperative_groups|nvcuda|cub|asm|clock64)\b"
)
PREPROCESSOR = {"__VA_ARGS__"}

building_parts = threading.Lock()


class UnknownFeature(AssertionError):
    """A kernel uses something of CUDA that the host run does not know."""


class MissingTool(RuntimeError):
    """The machine lacks a compiler or a sanitizer."""


def known_names() -> set[str]:
    text = "".join((HERE / name).read_text() for name in ("device.h", "execution.h", "cuda/launch.h"))
    return set(re.findall(r"\w+", without_comments(text))) | PREPROCESSOR


def without_comments(code: str) -> str:
    return re.sub(r"//.*", "", code)


def included(source: Path, roots: Sequence[Path]) -> dict[Path, str]:
    """`source` and what it includes by quotes, in the first of `roots` that has it: path -> text."""
    texts: dict[Path, str] = {}
    waiting = [source]
    while waiting:
        path = waiting.pop()
        if path in texts:
            continue
        texts[path] = path.read_text()
        for name in re.findall(r'#include "([^"]+)"', texts[path]):
            waiting += [root / name for root in roots if (root / name).is_file()][:1]
    return texts


def check_features(source: Path, roots: Sequence[Path]) -> None:
    """Raises UnknownFeature for a reserved name in `source`, or in what it includes, that device.h does not define."""
    known = known_names()
    for path, text in included(source, roots).items():
        if path.parent == HERE or path == HERE / "cuda" / "launch.h" or path.name == "host_device.h":
            continue
        code = without_comments(text)
        for match in RESERVED.finditer(code):
            if match[0] not in known:
                raise unknown(f"{path}:{code.count(chr(10), 0, match.start()) + 1}", match[0])


def unknown(place: str, feature: str) -> UnknownFeature:
    return UnknownFeature(
        f"{place} uses {feature}, which the host run of CUDA kernels does not know; "
        f"give it its meaning in {HERE / 'device.h'}, or check this kernel on a GPU alone"
    )


def run(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)


def compile_program(source: Path, kind: str, folder: Path, first: Path | None = None) -> Path:
    """Compiles `source`, a program like those of kernels/, in one of BUILDS.

    Headers in `first` stand in for the package's. Raises UnknownFeature, MissingTool, or an AssertionError with
    what the compiler says.
    """
    roots = [HERE, *([first] if first else []), CSRC]
    check_features(source, roots)
    compiler = os.environ.get("CXX") or shutil.which("g++")
    objcopy = shutil.which("objcopy")
    if compiler is None or objcopy is None:
        raise MissingTool("the host run of CUDA kernels needs g++ and objcopy")
    command = [compiler, "-std=c++20", "-O1", "-g1", "-w", *(f"-I{root}" for root in roots)]
    command.append(f"-isystem{Path(torch.__file__).parent / 'include'}")
    flags = (BUILDS | COUNTS)[kind]
    kernel = folder / f"{source.stem}_{kind}.o"
    compiled = run([*command, *flags, "-c", source, "-o", kernel])
    if undeclared := re.search(r"^(\S+?:\d+).*error: [‘'](\w+)[’'] was not declared", compiled.stderr, re.MULTILINE):
        raise unknown(undeclared[1], undeclared[2])
    if compiled.returncode:
        raise AssertionError(f"{source} does not compile for the host:\n{compiled.stderr}")
    # All that a kernel file holds of zero-initialised variables is its static shared memory.
    subprocess.run([objcopy, "--rename-section", ".bss=cuda_shared", kernel], check=True)
    objects = [kernel]
    with building_parts:
        for part in (
            "fibre",
            "block",
            "counting",
            "execution",
            "case",
        ):  # not instrumented: they are not what is checked
            objects.append(folder / f"{part}_{kind}.o")
            if not objects[-1].exists():
                definitions = [flag for flag in flags if flag.startswith("-D")]
                subprocess.run([*command, *definitions, "-c", HERE / f"{part}.cpp", "-o", objects[-1]], check=True)
    program = folder / f"{source.stem}_{kind}"
    libraries = [] if kind in COUNTS else flags  # the counting part answers in the sanitizer's place
    linked = run([compiler, *libraries, *objects, "-o", program])
    if "cannot find" in linked.stderr:
        raise MissingTool(f"{compiler} comes without the sanitizers of {' '.join(flags)}")
    if linked.returncode:
        raise AssertionError(linked.stderr)
    return program
