"""Opens the models that a user names: checkpoints and the user's own detectors. Also picks the device."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import cast

import torch
from torch import nn

from task_aware.base import checkpoint
from task_aware.base.errors import CheckpointError
from task_aware.models.crnn import load_detector
from task_aware.models.denoiser import DenoisedDetector
from task_aware.models.detector import Detector, freeze
from task_aware.models.listeners import open_listener
from task_aware.models.protocol import check_listener, check_protocol
from task_aware.models.system import Separator

_ASSETS = Path(__file__).parents[1] / "assets"

#: The detector of the built-in corpus, made by `python -m task_aware.train_sed`.
BUILTIN_DETECTOR = _ASSETS / "detector_builtin.safetensors"

#: A separator to try the commands with, made by `train --separator.preset medium --max-steps 8000`.
BUILTIN_SEPARATOR = _ASSETS / "separator_builtin.safetensors"


def open_detector(name: str | os.PathLike[str]) -> Detector:
    """Opens what `--detector` names: a checkpoint, what `package.module:factory` returns, or a listener.

    A listener is one of those of other packages, by its name, or the folder of a model of `transformers`.

    Raises:
        CheckpointError: the file is missing, truncated, not a checkpoint of this package, of a newer format or of
            another kind.
        ValueError: there is no such factory, or its detector does not follow the protocol.
    """
    name = os.fspath(name)
    if (listener := open_listener(name)) is not None:
        return cast(Detector, check_listener(listener, name))
    return import_detector(name) if ":" in name and not Path(name).exists() else load_detector(name)


def import_detector(name: str) -> Detector:
    """Calls `package.module:factory` without arguments and freezes the detector or listener that it returns.

    Modules in the working directory are found too.

    Raises ValueError if there is no such factory, or if its detector does not follow the protocol.
    """
    module_name, _, factory_name = name.partition(":")
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"there is no detector {name!r} ({error}); name a checkpoint, or a function without arguments that returns "
            "a detector, as package.module:factory"
        ) from error
    detector = factory()
    if hasattr(detector, "sample_rate"):  # as listeners have, whose front end is their own
        return cast(Detector, check_listener(detector, name))
    check_protocol(detector, name)
    return cast(Detector, freeze(detector))


def pick_device(accelerator: str) -> torch.device:
    """The GPU if there is one and `accelerator` is not cpu, otherwise the CPU.

    Raises ValueError if `accelerator` is gpu and there is none.
    """
    there = torch.cuda.is_available()
    if accelerator == "gpu" and not there:
        raise ValueError("--accelerator is gpu, but PyTorch finds no GPU here; give auto or cpu")
    return torch.device("cuda" if accelerator != "cpu" and there else "cpu")


def detector_of(model: nn.Module) -> Detector:
    """The detector inside a separator or a denoiser, or the detector itself."""
    return model.detector if isinstance(model, (Separator, DenoisedDetector)) else cast(Detector, model)


def open_model(path: str | os.PathLike[str], detector: str | os.PathLike[str] | None = None) -> nn.Module:
    """Opens the separator, denoiser or detector in a checkpoint.

    Args:
        path: the file.
        detector: only for a separator: a detector to use instead of the one in the file, required if the file has
            none; a checkpoint, or `package.module:factory` for your own.

    Raises:
        CheckpointError: the file is missing, broken or of another kind, or the detector does not suit it.
        ValueError: there is no such factory, or its detector does not follow the protocol.
    """
    kind = checkpoint.kind_of(path)
    if kind == "separator":
        return Separator.from_checkpoint(path, cast(nn.Module, open_detector(detector)) if detector else None)
    if detector is not None:
        raise CheckpointError(
            f"{path} holds a {kind}, but only a separator can use another detector; leave the detector out"
        )
    return DenoisedDetector.from_checkpoint(path) if kind == "denoiser" else load_detector(path)
