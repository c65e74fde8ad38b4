"""Reads checkpoints of the published DCASE 2020 task 4 baseline, without executing code that they contain."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from task_aware.base.errors import CheckpointError
from task_aware.models.crnn import CRNN, CRNNConfig
from task_aware.models.features import FeatureConfig

#: NumPy types in such files, besides tensors and plain values; their modules were renamed in NumPy 2.0.
_NUMPY: list[Any] = [
    np.dtype,
    np.ndarray,
    *{type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64", "bool")},
    *(
        (sample.__reduce__()[0], f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name, sample in (("scalar", np.float64(0)), ("_reconstruct", np.empty(0)))
    ),
]


UNTRAINED_ATTENTION = (
    "such files do not contain the attention layer (dense_softmax), so clip probabilities are pooled by %s instead and "
    "differ from the published ones; frame probabilities do not"
)


def read_file(path: Path) -> dict[str, Any]:
    """Reads the content of a baseline checkpoint; only tensors, numbers and containers are unpickled.

    Raises CheckpointError if the file is anything else.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; expected a checkpoint of the baseline")
    try:
        with torch.serialization.safe_globals(_NUMPY):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        called = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it would call {called[1]}" if called else "it is not a file of torch.save, or it is truncated"
        raise CheckpointError(f"{path} is not a checkpoint that can be read safely: {reason}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; expected the dict that the baseline saves")
    return content


def convert(
    content: Mapping[str, Any], where: Path, *, ema: bool = False, clip_pooling: Any = "linear_softmax"
) -> CRNN:
    """Converts a baseline checkpoint to a detector in evaluation mode.

    Args:
        content: content of the checkpoint, from `read_file`.
        where: path of the checkpoint, for errors.
        ema: use the mean teacher (`model_ema`) instead of the student (`model`), which the baseline evaluates.
        clip_pooling: see `CRNNConfig`; `attention` is not possible.

    Raises:
        CheckpointError: an entry is missing or differs in shape from the baseline's.
    """

    def entry(*names: str) -> Any:
        found: Any = content
        for depth, name in enumerate(names):
            if not isinstance(found, Mapping) or name not in found:
                place = "".join(f"[{n!r}]" for n in names[: depth + 1])
                raise CheckpointError(
                    f"{where} has no entry {place}; it is not a checkpoint of the DCASE 2020 task 4 baseline"
                )
            found = found[name]
        return found

    model = "model_ema" if ema else "model"
    state: dict[str, Mapping[str, Tensor]] = {
        part: entry(model, "state_dict", part) for part in ("cnn", "rnn", "dense")
    }
    arguments = entry(model, "kwargs")
    labels = tuple(map(str, entry("many_hot_encoder", "labels")))
    try:
        mean, mean_of_square = (
            torch.as_tensor(entry("scaler", "state_dict", name), dtype=torch.float64).flatten()
            for name in ("mean_", "mean_of_square_")
        )
        variance = mean_of_square - mean.square()
        filters: list[int] = []
        while f"conv{len(filters)}.weight" in state["cnn"]:
            filters.append(len(state["cnn"][f"conv{len(filters)}.weight"]))
        config = CRNNConfig(
            filters=tuple(filters),
            pooling=tuple((int(time), int(mel)) for time, mel in arguments.get("pooling", CRNNConfig.pooling)),
            rnn_cells=state["rnn"]["rnn.weight_hh_l0"].shape[1],
            rnn_layers=sum(name.startswith("rnn.weight_hh") for name in state["rnn"]) // 2,
            clip_pooling=clip_pooling,
            median_frames=int(entry("median_window")),
        )
        detector = CRNN(config, labels, FeatureConfig(n_mels=len(mean)))
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{where} describes a network that is not the baseline's ({error})") from error
    if entry("pooling_time_ratio") != detector.time_pooling:
        raise CheckpointError(
            f"{where} has the pooling_time_ratio {entry('pooling_time_ratio')}, but its blocks pool "
            f"{detector.time_pooling} frames; use an unmodified checkpoint"
        )
    if not (variance > 0).all():  # NaN too
        raise CheckpointError(f"the scaler in {where} has variances that are not above 0; use an unmodified checkpoint")
    tensors = {"mean": mean.float(), "std": variance.sqrt().float()}
    for part, tree in state.items():
        for name, tensor in tree.items():
            tensors[_our_name(part, name)] = tensor
    try:
        detector.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n\t")[1:]).strip()
        raise CheckpointError(f"the weights in {where} are not the baseline's: {reason}") from error
    return detector.eval()


def _our_name(part: str, name: str) -> str:
    if part == "cnn":
        layer, _, rest = name.partition(".")
        kind = layer.rstrip("0123456789")
        place = {"conv": 0, "batchnorm": 1, "glu": 2}.get(kind)
        return name if place is None else f"blocks.{layer[len(kind) :]}.{place}.{rest}"
    return name if part == "rnn" else f"dense.{name}"
