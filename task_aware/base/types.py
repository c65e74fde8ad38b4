"""Types for the annotations of modules that are read without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor as Tensor
else:
    Tensor = Any

#: Implementation of an operator: `reference` is PyTorch, and `auto` is `native`, for devices that have kernels.
Backend = Literal["auto", "native", "reference"]

#: Forms of the separated sources of a recording: NAME.SOURCE.flac at the detector's sample rate, with the rest; or
#: NAME_K_CLASS.wav as long and at the same rate as the recording, which DCASE 2026 task 4 reads.
Layout = Literal["flac", "s5"]

#: Formats of events for annotation programs.
Format = Literal["audacity", "raven", "textgrid", "jams"]
