"""From what a user names to a model: checkpoints, detectors of the user's own, and the device they run on."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn

from task_aware.base import checkpoint
from task_aware.base.errors import CheckpointError
from task_aware.models.crnn import load_detector
from task_aware.models.denoiser import DenoisedDetector
from task_aware.models.detector import Detector, freeze
from task_aware.models.protocol import check_protocol
from task_aware.models.system import Separator

#: Of the networks: all in float32, or autocast to bfloat16.
Precision = Literal["32-true", "bf16-mixed"]

_ASSETS = Path(__file__).parents[1] / "assets"

#: The detector of the built-in corpus, as `python -m task_aware.train_sed` makes it.
BUILTIN_DETECTOR = _ASSETS / "detector_builtin.safetensors"

#: A separator to try the commands with, as `python -m task_aware.train --fused` makes it.
BUILTIN_SEPARATOR = _ASSETS / "separator_builtin.safetensors"


def open_detector(name: str | os.PathLike[str]) -> Detector:
    """What `--detector` names: the detector in a checkpoint, or the one that `package.module:factory` makes.

    Raises:
        CheckpointError: the file is missing, cut off, foreign, of a newer format or of another kind.
        ValueError: there is no such factory, or what it makes does not follow the protocol.
    """
    name = os.fspath(name)
    return import_detector(name) if ":" in name and not Path(name).exists() else load_detector(name)


def import_detector(name: str) -> Detector:
    """The detector that `package.module:factory` makes, frozen.

    The factory is called without arguments; it may lie in the working folder.

    Raises ValueError where there is none, or what it makes does not follow the protocol.
    """
    module_name, _, factory_name = name.partition(":")
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"there is no detector {name!r} ({error}); give a checkpoint, or package.module:factory with a function "
            "that makes a detector"
        ) from error
    detector = factory()
    check_protocol(detector, name)
    return cast(Detector, freeze(detector))


def pick_device(accelerator: str) -> torch.device:
    """The GPU where there is one, unless `accelerator` is cpu."""
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def detector_of(model: nn.Module) -> Detector:
    """The detector behind a separator or a denoiser, or the detector itself."""
    return model.detector if isinstance(model, (Separator, DenoisedDetector)) else cast(Detector, model)


def open_model(path: str | os.PathLike[str], detector: str | os.PathLike[str] | None = None) -> nn.Module:
    """The separator, denoiser or detector in a checkpoint.

    Args:
        path: the file.
        detector: of a separator, in place of the one in the file, and needed where that has none: a checkpoint, or
            `package.module:factory` of one of your own.

    Raises:
        CheckpointError: the file is missing, broken or of another kind; or it needs another detector, or none.
        ValueError: there is no such factory, or what it makes does not follow the protocol.
    """
    kind = checkpoint.kind_of(path)
    if kind == "separator":
        return Separator.from_checkpoint(path, cast(nn.Module, open_detector(detector)) if detector else None)
    if detector is not None:
        raise CheckpointError(f"{path} holds a {kind}, and only a separator takes another detector; leave that out")
    return DenoisedDetector.from_checkpoint(path) if kind == "denoiser" else load_detector(path)
