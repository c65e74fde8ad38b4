"""Types for the annotations of modules that are read without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor as Tensor
else:
    Tensor = Any

#: Implementation of an operator: `reference` is PyTorch, and `auto` is `native`, for devices that have kernels.
Backend = Literal["auto", "native", "reference"]
