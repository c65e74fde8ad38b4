"""Selects the implementation of an operator: the native kernels or the PyTorch reference.

Also handles the caller's context: references ignore autocast, and kernels refuse the derivatives that they do not have.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..base.errors import BackendError
from ..base.types import Backend as Backend
from . import _extension

_Reference = TypeVar("_Reference", bound=Callable[..., Any])
_Function = TypeVar("_Function", bound=Callable[..., Any])


def use_native(operation: str, backend: str, tensor: Tensor) -> bool:
    """Whether ``operation`` runs the native kernels on ``tensor``'s device.

    Raises :class:`ValueError` if the backend is unknown, and :class:`BackendError` if the device has no kernels: a
    silent fallback would be unexpectedly slow.
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
    """Whether CUDA kernels handle ``tensor`` and so need lookup tables, unlike the CPU's; true of meta tensors too."""
    return tensor.device.type != "cpu"


def has_kernels() -> bool:
    """Whether the operators' schemas are registered, which fakes and autograd formulas need."""
    return _extension.extension.cpu


def outside_autocast(reference: _Reference) -> _Reference:
    """Disables autocast in a reference, so that it computes in the precision of its arguments, as the kernels do."""

    @functools.wraps(reference)
    def call(*args: Any, **kwargs: Any) -> Any:
        kind = next(x.device.type for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
            return reference(*args, **kwargs)  # keeps autocast out of exported graphs
        with torch.autocast(kind, enabled=False):
            return reference(*args, **kwargs)

    return call  # type: ignore[return-value]


def constant_in_graphs(function: _Function) -> _Function:
    """Marks a function whose result is a constant of compiled graphs.

    ``torch.compiler.assume_constant_result`` does no more, but imports the compiler first, which takes as long as the
    rest of torch.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


class _ReverseModeOnly(torch.library.Library):
    """Registers autograd formulas that refuse other ways to a derivative than torch.autograd's reverse mode.

    PyTorch would silently return zeros in forward mode, and name methods that a caller of torch.func does not have.
    """

    def impl(self, op_name: str, fn: Any, *args: Any, **kwargs: Any) -> Any:
        operation = op_name.removesuffix("_backward")

        def checked(keyset: Any, *tensors: Any, **others: Any) -> Any:
            for tensor in tensors:
                if isinstance(tensor, Tensor) and forward_ad.unpack_dual(tensor).tangent is not None:
                    raise NotImplementedError(
                        f"{operation}: the native kernels have no forward-mode derivatives; use reverse mode, "
                        "or backend='reference'."
                    )
            try:
                return fn(keyset, *tensors, **others)
            except RuntimeError as error:
                if "setup_context" not in str(error):
                    raise
                raise NotImplementedError(
                    f"{operation}: the native kernels have no derivatives by torch.func (grad, vjp, jacrev, ...); use "
                    "torch.autograd, or backend='reference'."
                ) from None

        return super().impl(op_name, checked, *args, **kwargs)


@functools.cache
def _library() -> torch.library.Library:
    return _ReverseModeOnly("task_aware", "FRAGMENT")


def register_autograd(name: str, backward: Callable[..., Any], **options: Any) -> None:
    """``torch.library.register_autograd`` for an operator of this package; other derivatives raise an error."""
    torch.library.register_autograd(f"task_aware::{name}", backward, lib=_library(), **options)


def refuse_second_derivatives(name: str) -> None:
    """Lets derivatives of ``<name>_backward``, a kernel, raise an error, where PyTorch would silently return zeros."""

    def refuse(ctx: Any, *grads: Tensor | None) -> None:
        raise NotImplementedError(f"{name}: the native kernels have no second derivatives; use backend='reference'.")

    register_autograd(f"{name}_backward", refuse)


def _absent(operation: str, kind: str, reason: str) -> str:
    build = _extension.extension.build
    built = ""
    if kind == "CUDA" and build:
        built = f" ({_extension.extension.folder} holds CPU kernels only)" if build["cuda_absent"] else ""
    command = _extension.BUILD_COMMAND
    if kind == "CUDA":
        command = f"TASK_AWARE_CUDA=1 {command}"
    return (
        f"{operation}: the tensors are on {kind}, but the {kind} kernels are not available{built}, because {reason}; "
        f"build them with `{command}`, or use backend='reference'."
    )


@functools.cache
def _check_architecture(operation: str, index: int) -> None:
    major, minor = torch.cuda.get_device_capability(index)
    built = _extension.extension.build["architectures"]
    if not runs_on(built, major, minor):
        raise BackendError(
            f"{operation}: the GPU is sm_{major}{minor}, but the CUDA kernels were built for {built}; build them for "
            f"this GPU with `TORCH_CUDA_ARCH_LIST={major}.{minor} {_extension.BUILD_COMMAND}`, or use "
            f"backend='reference'."
        )


def runs_on(architectures: str, major: int, minor: int) -> bool:
    """Whether kernels built for ``architectures`` (in the format of TORCH_CUDA_ARCH_LIST) run on such a GPU.

    Machine code runs on its own version and on later minor versions of the same major version; PTX runs on every later
    version. The suffix ``f`` restricts both to the major version, the suffix ``a`` to exactly that version.
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
