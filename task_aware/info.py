"""`python -m task_aware.info`: shows versions, native libraries and GPUs."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence

import torch
from jsonargparse import ArgumentParser

from task_aware.base.version import __version__
from task_aware.ops._extension import BUILD_COMMAND, extension


def cpu_line() -> str:
    if not extension.cpu:
        return f"absent: {extension.cpu_absent}; build them with `{BUILD_COMMAND}`"
    build = extension.build
    return f"built by {build['compiler']} against torch {build['torch']}, in {extension.folder}"


def cuda_line() -> str:
    if not extension.cuda:
        return f"absent: {extension.cuda_absent}"
    build = extension.build
    architectures = build["architectures"].replace(";", ", ")
    return f"built by nvcc {build['cuda']} for {architectures}, in {extension.folder}"


def gpu_lines() -> list[str]:
    if not torch.cuda.is_available():
        return ["none"]
    lines = []
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        memory = device.total_memory / 2**30
        lines.append(f"{device.name}, sm_{device.major}{device.minor}, {memory:.0f} GiB")
    return lines


def report() -> str:
    """The report, one line per component."""
    cuda = torch.version.cuda
    rows = [
        ("task_aware", __version__),
        ("python", platform.python_version()),
        ("torch", f"{torch.__version__} ({f'CUDA {cuda}' if cuda else 'no CUDA'})"),
        ("CPU kernels", cpu_line()),
        ("CUDA kernels", cuda_line()),
        ("CPU threads", str(torch.get_num_threads())),
        *(("GPU", line) for line in gpu_lines()),
    ]
    return "\n".join(f"{name:<13} {value}" for name, value in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Shows versions, native libraries and GPUs; if a library is missing, says why."""
    ArgumentParser(prog="python -m task_aware.info", description=main.__doc__).parse_args(arguments)
    print(report())
    return 0


if __name__ == "__main__":
    sys.exit(main())
