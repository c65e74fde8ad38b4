"""Which implementation a call runs: the native kernels or the PyTorch reference.

Also how each handles its caller's context: references ignore autocast, and kernels refuse forward-mode differentiation.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..base.errors import BackendError
from . import _extension

Backend = Literal["auto", "native", "reference"]
_Reference = TypeVar("_Reference", bound=Callable[..., Any])


def use_native(operation: str, backend: str, tensor: Tensor) -> bool:
    """Whether ``operation`` runs natively on ``tensor``'s device.

    Raises :class:`ValueError` for an unknown backend and :class:`BackendError` where the device has no
    kernels: a silent fallback would be a slow surprise.
    """
    if backend not in ("auto", "native", "reference"):
        raise ValueError(f"{operation}: backend is {backend!r}, expected 'auto', 'native' or 'reference'.")
    if backend == "reference":
        return False
    extension = _extension.extension
    kind = tensor.device.type
    if kind == "cpu" or kind == "meta":
        if not extension.cpu:
            raise BackendError(_absent(operation, "CPU", extension.cpu_absent))
    elif kind == "cuda":
        if not extension.cuda:
            raise BackendError(_absent(operation, "CUDA", extension.cuda_absent))
        if not torch.compiler.is_compiling():
            _check_architecture(operation, tensor.device.index)
    else:
        raise BackendError(
            f"{operation}: there are no native kernels for {kind} tensors; move them to the CPU or a GPU, "
            "or pass backend='reference'."
        )
    return True


def served_by_cuda(tensor: Tensor) -> bool:
    """Whether CUDA kernels handle ``tensor``: they need lookup tables, the CPU's do not. Meta tensors count too."""
    return tensor.device.type != "cpu"


def has_kernels() -> bool:
    """Whether the operators' schemas are registered, so that fakes and autograd can be."""
    return _extension.extension.cpu


def outside_autocast(reference: _Reference) -> _Reference:
    """Lets a reference compute within autocast as it does outside, in its arguments' precision; so do the kernels."""

    @functools.wraps(reference)
    def call(*args: Any, **kwargs: Any) -> Any:
        kind = next(x.device.type for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
            return reference(*args, **kwargs)  # and an exported graph knows nothing of autocast
        with torch.autocast(kind, enabled=False):
            return reference(*args, **kwargs)

    return call  # type: ignore[return-value]


class _WithoutForwardMode(torch.library.Library):
    """Registers autograd formulas that raise on forward-mode inputs, where PyTorch would silently return zeros."""

    def impl(self, op_name: str, fn: Any, *args: Any, **kwargs: Any) -> Any:
        operation = op_name.removesuffix("_backward")

        def checked(keyset: Any, *tensors: Any, **others: Any) -> Any:
            for tensor in tensors:
                if isinstance(tensor, Tensor) and forward_ad.unpack_dual(tensor).tangent is not None:
                    raise NotImplementedError(
                        f"{operation}: the native kernels have no forward-mode derivatives; use reverse mode, "
                        "or backend='reference'."
                    )
            return fn(keyset, *tensors, **others)

        return super().impl(op_name, checked, *args, **kwargs)


@functools.cache
def _library() -> torch.library.Library:
    return _WithoutForwardMode("task_aware", "FRAGMENT")


def register_autograd(name: str, backward: Callable[..., Any], **options: Any) -> None:
    """``torch.library.register_autograd`` of an operator of this package, whose forward mode is an error."""
    torch.library.register_autograd(f"task_aware::{name}", backward, lib=_library(), **options)


def _absent(operation: str, kind: str, reason: str) -> str:
    build = _extension.extension.build
    built = ""
    if kind == "CUDA" and build:
        built = f" ({_extension.extension.folder} holds CPU kernels only)" if build["cuda_absent"] else ""
    command = _extension.BUILD_COMMAND
    if kind == "CUDA":
        command = f"TASK_AWARE_CUDA=1 {command}"
    return (
        f"{operation}: the tensors are on {kind} and the {kind} kernels are absent{built}, because {reason}; "
        f"`{command}` builds them, backend='reference' does without."
    )


@functools.cache
def _check_architecture(operation: str, index: int) -> None:
    major, minor = torch.cuda.get_device_capability(index)
    built = _extension.extension.build["architectures"]
    if not runs_on(built, major, minor):
        raise BackendError(
            f"{operation}: the GPU is sm_{major}{minor} and the CUDA kernels were built for {built}; "
            f"`TORCH_CUDA_ARCH_LIST={major}.{minor} {_extension.BUILD_COMMAND}` builds them for it, "
            f"backend='reference' does without."
        )


def runs_on(architectures: str, major: int, minor: int) -> bool:
    """Whether kernels for ``architectures`` (as TORCH_CUDA_ARCH_LIST writes them) run on such a GPU.

    Machine code runs on its own and later minor versions of the same major one, PTX on every later version; with
    the suffix ``f`` neither leaves the major version, with ``a`` the version itself.
    """
    for item in architectures.split(";"):
        match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", item)
        if match is None:
            continue
        built, suffix = (int(match[1]), int(match[2])), match[3]
        if built == (major, minor):
            return True
        if suffix != "a" and built[0] == major and built[1] <= minor:
            return True
        if suffix == "" and match[4] and built <= (major, minor):
            return True
    return False
