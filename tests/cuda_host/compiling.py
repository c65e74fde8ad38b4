"""Builds programs and operators of torch around the CUDA kernels' own sources, for a machine without a GPU."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from filelock import FileLock

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"

# What is checked: values and schedules; memory and arithmetic; the order of memory accesses. Optimising would more than
# double the time to compile what the address sanitizer checks, and save less of its run.
BUILDS = {
    "plain": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O0", "-g1", "-DCUDA_HOST_ADDRESS"],
    "thread": ["-fsanitize=thread", "-g1", "-DCUDA_HOST_THREAD"],
}
# What is counted (counting.h). Copies of small structures stay whole, as a GPU makes them.
COUNTS = {"counts": ["-fsanitize=thread", "-O0", "-DCUDA_HOST_COUNTS"]}
# Names that only CUDA, the compiler or the preprocessor may give a meaning.
RESERVED = re.compile(
    r"extern\s+__shared__|<<<|<\w+\.h>|<cuda/\w+>"
    r"|\b(?:__\w+|cuda[A-Z]\w*|cooperative_groups|nvcuda|cub|asm|clock64)\b"
)
PREPROCESSOR = {"__VA_ARGS__"}


def shared_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A temporary folder of this run of the tests, which all processes of pytest-xdist share; lock what you write.

    Its --dist=loadgroup would keep what compiles in one process, but does not group with pytest 9.2.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder


class UnknownFeature(AssertionError):
    """A kernel uses something of CUDA that the host run does not know."""


class MissingTool(RuntimeError):
    """The machine lacks a compiler or a sanitizer."""


def known_names() -> set[str]:
    text = "".join((HERE / name).read_text() for name in ("device.h", "execution.h", "cuda/launch.h", "cuda/scope.h"))
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
        if path.parent == HERE or path.parent == HERE / "cuda" or path.name == "host_device.h":
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


def find_tools() -> tuple[str, str]:
    """The compiler and objcopy; raises MissingTool."""
    compiler = os.environ.get("CXX") or shutil.which("g++")
    objcopy = shutil.which("objcopy")
    if compiler is None or objcopy is None:
        raise MissingTool("the host run of CUDA kernels needs g++ and objcopy")
    return compiler, objcopy


def compile_command(compiler: str, roots: Sequence[Path], *options: str) -> list[str | Path]:
    includes = [*(f"-I{root}" for root in roots), f"-isystem{Path(torch.__file__).parent / 'include'}"]
    return [compiler, "-std=c++20", "-w", *includes, *options]


def compile_kernels(source: Path, target: Path, roots: Sequence[Path], *options: str) -> Path:
    """The object of a file with kernels, whose static shared memory lies in a section of its own."""
    compiler, objcopy = find_tools()
    check_features(source, roots)
    compiled = run([*compile_command(compiler, roots, *options), "-x", "c++", "-c", source, "-o", target])
    if undeclared := re.search(r"^(\S+?:\d+).*error: [‘'](\w+)[’'] was not declared", compiled.stderr, re.MULTILINE):
        raise unknown(undeclared[1], undeclared[2])
    if compiled.returncode:
        raise AssertionError(f"{source} does not compile for the host:\n{compiled.stderr}")
    # All that a kernel file holds of zero-initialised variables is its static shared memory.
    subprocess.run([objcopy, "--rename-section", ".bss=cuda_shared", target], check=True)
    return target


def compile_parts(kind: str, folder: Path) -> Path:
    """The object of what all programs of one of BUILDS have in common, not instrumented: it is not what is checked."""
    target = folder / f"parts_{kind}.o"
    with FileLock(folder / "parts.lock"):
        if not target.exists():
            compiler, _ = find_tools()
            definitions = [flag for flag in (BUILDS | COUNTS)[kind] if flag.startswith("-D")]
            command = compile_command(compiler, [HERE], "-O1", "-g1", *definitions)
            subprocess.run([*command, "-c", HERE / "parts.cpp", "-o", target], check=True)
    return target


def compile_program(source: Path, kind: str, folder: Path, first: Path | None = None) -> Path:
    """Compiles `source`, a program like those of kernels/, in one of BUILDS.

    Headers in `first` stand in for the package's; the program is written there then. Raises UnknownFeature,
    MissingTool, or an AssertionError with what the compiler says.
    """
    roots = [HERE, *([first] if first else []), CSRC]
    flags = (BUILDS | COUNTS)[kind]
    program = (first or folder) / f"{source.stem}_{kind}"
    kernels = compile_kernels(source, program.with_suffix(".o"), roots, "-O1", *flags)
    compiler, _ = find_tools()
    libraries = [] if kind in COUNTS else flags  # the counting part answers in the sanitizer's place
    linked = run([compiler, *libraries, kernels, compile_parts(kind, folder), "-o", program])
    if "cannot find" in linked.stderr:
        raise MissingTool(f"{compiler} comes without the sanitizers of {' '.join(flags)}")
    if linked.returncode:
        raise AssertionError(linked.stderr)
    return program


def compile_once(source: Path, kind: str, folder: Path) -> Path:
    """compile_program, unless another process has done so in this folder or is about to."""
    with FileLock(folder / f"{source.stem}_{kind}.lock"):
        program = folder / f"{source.stem}_{kind}"
        return program if program.exists() else compile_program(source, kind, folder)


def compile_operators(
    sources: Sequence[Path], library: str, kind: str, folder: Path, first: Path | None = None
) -> Path:
    """Compiles operators, `csrc/cuda/<op>.cu`, in one of BUILDS into a shared object, torch's `library` of them.

    They serve CPU tensors there. Headers in `first` stand in for the package's. Raises as compile_program does.
    """
    roots = [HERE, *([first] if first else []), CSRC]
    flags = BUILDS[kind]
    options = ["-O1", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", f'-DCUDA_HOST_LIBRARY="{library}"']
    options.append("-DTORCH_TARGET_VERSION=0x020b000000000000")
    compiler, _ = find_tools()

    def compile_part(part: Path) -> Path:
        target = folder / f"{library}_{part.stem}.o"
        definitions = [flag for flag in flags if flag.startswith("-D")]
        command = compile_command(compiler, roots, *options, *definitions)
        subprocess.run([*command, "-c", part, "-o", target], check=True)
        return target

    def compile_operator(source: Path) -> Path:
        return compile_kernels(source, folder / f"{library}_{source.stem}.o", roots, *options, *flags)

    parts = [HERE / "parts.cpp", HERE / "plugin.cpp"]
    with ThreadPoolExecutor(os.cpu_count()) as compilers:
        objects = [*compilers.map(compile_operator, sources), *compilers.map(compile_part, parts)]
    shared_object = folder / f"{library}.so"
    torch_libraries = Path(torch.__file__).parent / "lib"
    linked = run([compiler, "-shared", *flags, *objects, f"-L{torch_libraries}", "-ltorch_cpu", "-o", shared_object])
    if linked.returncode:
        raise AssertionError(linked.stderr)
    return shared_object
