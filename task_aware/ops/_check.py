"""Argument checks shared by the operators; errors name the operator, the argument, its value and what is expected."""

from __future__ import annotations

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.float64, torch.bfloat16)


def shape(tensor: Tensor) -> str:
    """Formats a shape as ``[2,5,128]``."""
    return "[" + ",".join(str(size) for size in tensor.shape) + "]"


def floating(operation: str, **tensors: Tensor) -> None:
    """Raises TypeError unless every tensor is float32, float64 or bfloat16."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{operation}: {name} is {type(tensor).__name__}, expected a torch.Tensor.")
        if tensor.dtype not in FLOATING:
            raise TypeError(f"{operation}: {name} is {tensor.dtype}, expected float32, float64 or bfloat16.")


def dtype(operation: str, name: str, tensor: Tensor, wanted: torch.dtype) -> None:
    """Raises TypeError unless ``tensor`` has exactly this dtype."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{operation}: {name} is {type(tensor).__name__}, expected a torch.Tensor.")
    if tensor.dtype != wanted:
        raise TypeError(f"{operation}: {name} is {tensor.dtype}, expected {wanted}.")


def same_device(operation: str, **tensors: Tensor) -> None:
    """Raises ValueError unless all tensors are on one device."""
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if tensor.device != first.device:
            raise ValueError(
                f"{operation}: {name} is on {tensor.device} and {first_name} is on {first.device}, expected one device."
            )


def has_shape(operation: str, name: str, tensor: Tensor, wanted: tuple[int, ...], letters: str) -> None:
    """Raises ValueError unless ``tensor`` has the shape ``wanted``, called ``letters`` ("[B,S]") in the message."""
    if tuple(tensor.shape) != tuple(wanted):
        sizes = ",".join(str(size) for size in wanted)
        raise ValueError(f"{operation}: {name} is {shape(tensor)}, expected {letters} = [{sizes}].")
