"""Checkpoints: one safetensors file each, with everything that is not a tensor as JSON in its header.

Nothing is ever unpickled. A file is written under a temporary name and then renamed, so that it is never incomplete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from task_aware.base.errors import CheckpointError
from task_aware.base.files import cannot_write, replacing
from task_aware.base.version import __version__

#: Version of the file layout; increased when an older reader would misread a newer file.
FORMAT = 1

Module = TypeVar("Module", bound=nn.Module)
Config = TypeVar("Config")


def write(path: str | os.PathLike[str], kind: str, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
    """Writes `tensors` and `content`, which must be JSON-serialisable, to one safetensors file, atomically.

    Raises OutputError if it cannot be written.
    """
    header = {"kind": kind, "format": FORMAT, "task_aware": __version__, "torch": torch.__version__}
    metadata = {"task_aware": json.dumps(header), "content": json.dumps(content)}
    with replacing(Path(path)) as temporary:
        try:
            save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, temporary, metadata)
        except SafetensorError as error:
            raise cannot_write(Path(path), error) from error
        os.chmod(temporary, 0o644)


def kind_of(path: str | os.PathLike[str]) -> str:
    """Returns the kind of a checkpoint: `detector`, `separator`, `denoiser` or `training`."""
    return _open(path)[0]


def read(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads a checkpoint of this kind, written by `write`; returns its tensors and content.

    Raises:
        CheckpointError: the file is missing, truncated, not a checkpoint, of a newer format, or of another kind.
    """
    found, tensors, content = _open(path)
    if found != kind:
        raise CheckpointError(f"{path} is a {found} checkpoint, but a {kind} is needed here")
    return tensors, content


def _open(path: str | os.PathLike[str]) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    path = Path(path)
    if not os.path.isfile(path):
        raise CheckpointError(f"there is no checkpoint {path}; check the path")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            header = json.loads(metadata["task_aware"])
            content = json.loads(metadata["content"])
            if not (isinstance(content, dict) and type(header["format"]) is int and isinstance(header["kind"], str)):
                raise ValueError("header or content are not as `write` writes them")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file ({error}); write it again") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is a safetensors file, but not one written by task_aware; give a checkpoint of task_aware"
        ) from error
    if header["format"] > FORMAT:
        raise CheckpointError(
            f"{path} was written by task_aware {header.get('task_aware')} in format {header['format']}, but "
            f"task_aware {__version__} reads formats up to {FORMAT}; upgrade task_aware"
        )
    return header["kind"], tensors, content


@contextmanager
def describing(what: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns the errors that a wrong description of `what` leads to into a CheckpointError that names the file."""
    try:
        yield
    except CheckpointError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(
            f"the description of the {what} in {path} is incomplete or wrong ({reason}); write the file again"
        ) from error


def config_of(config_class: type[Config], values: Mapping[str, Any]) -> Config:
    """Makes a dataclass of sizes and options from JSON. Raises TypeError if a value is not of its type."""
    for name, wanted in get_type_hints(config_class).items():
        value = values.get(name)
        if get_origin(wanted) is Literal:
            fits = value in get_args(wanted)
        else:
            fits = type(value) in {int: (int,), bool: (bool,), float: (int, float)}.get(wanted, (list, tuple))
        if name in values and not fits:
            raise TypeError(f"{name} is {value!r}")
    return config_class(**values)


def build(make: Callable[[], Module], tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> Module:
    """Makes a module and loads its weights, once their sizes are known to fit: no memory is taken for any others.

    Raises CheckpointError if names or shapes differ.
    """
    with torch.device("meta"):
        expected = {name: list(tensor.shape) for name, tensor in make().state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    for name in expected | found:
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                f"the weights in {path} do not fit the sizes given in the same file: the shape of {name} is "
                f"{found.get(name)} instead of {expected.get(name)}"
            )
    module = make()
    module.load_state_dict(dict(tensors))
    return module


def flatten(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """Turns nested dicts, lists, tuples and plain values into JSON; moves tensors to `tensors`, under a number."""
    if isinstance(tree, Tensor):
        name = f"{len(tensors):06d}"
        tensors[name] = tree
        return {"tensor": name}
    if isinstance(tree, Mapping):
        return {"dict": [[flatten(key, tensors), flatten(value, tensors)] for key, value in tree.items()]}
    if isinstance(tree, (list, tuple)):
        return {type(tree).__name__ if type(tree) in (list, tuple) else "tuple": [flatten(x, tensors) for x in tree]}
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree
    if isinstance(tree, os.PathLike):
        return os.fspath(tree)
    raise TypeError(f"a checkpoint can hold tensors and plain values only, not {type(tree).__name__}: {tree!r}")


def unflatten(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `flatten`."""
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {unflatten(key, tensors): unflatten(item, tensors) for key, item in value}
    items = [unflatten(item, tensors) for item in value]
    return tuple(items) if kind == "tuple" else items
