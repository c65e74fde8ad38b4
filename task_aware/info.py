"""`python -m task_aware.info`: shows versions, native libraries and GPUs."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence

from task_aware.base import cli
from task_aware.base.version import __version__


def cpu_line() -> str:
    from task_aware.ops._extension import BUILD_COMMAND, extension

    if not extension.cpu:
        return f"absent: {extension.cpu_absent}; build them with `{BUILD_COMMAND}`"
    build = extension.build
    return f"built by {build['compiler']} against torch {build['torch']}, in {extension.folder}"


def cuda_line() -> str:
    from task_aware.ops._extension import extension

    if not extension.cuda:
        return f"absent: {extension.cuda_absent}"
    build = extension.build
    architectures = build["architectures"].replace(";", ", ")
    return f"built by nvcc {build['cuda']} for {architectures}, in {extension.folder}"


def gpu_lines() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return ["none"]
    lines = []
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        memory = device.total_memory / 2**30
        lines.append(f"{device.name}, sm_{device.major}{device.minor}, {memory:.0f} GiB")
    return lines


def rows() -> Iterator[tuple[str, str]]:
    """What there is, and what to say of it. It is looked up row by row: the first rows need no torch."""
    yield "task_aware", __version__
    yield "python", platform.python_version()
    import torch

    cuda = torch.version.cuda
    yield "torch", f"{torch.__version__} ({f'CUDA {cuda}' if cuda else 'no CUDA'})"
    yield "CPU kernels", cpu_line()
    yield "CUDA kernels", cuda_line()
    yield "CPU threads", str(torch.get_num_threads())
    for line in gpu_lines():
        yield "GPU", line


def main(arguments: Sequence[str] | None = None) -> None:
    """Shows versions, native libraries and GPUs; if a library is missing, says why."""
    cli.Parser(prog="python -m task_aware.info", description=main.__doc__).parse_args(arguments)
    for name, value in rows():
        print(f"{name:<13} {value}", flush=True)


if __name__ == "__main__":
    cli.run(main)
