"""Mutated checkpoints of all kinds, through everything that opens one."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch

from task_aware.base.errors import CheckpointError
from task_aware.data.labels import DESED_CLASSES
from task_aware.models.condition import condition_size
from task_aware.models.crnn import CRNN, CRNNConfig
from task_aware.models.denoiser import DenoisedDetector, Denoiser, DenoiserConfig
from task_aware.models.features import FeatureConfig
from task_aware.models.opening import open_model
from task_aware.models.separator import MaskNetwork, MaskNetworkConfig
from task_aware.models.system import ClassSeparator, Separator
from task_aware.training.loop import SafetensorsCheckpointIO

from .mutations import mutate, mutate_tree


def is_sentence(error: BaseException) -> bool:
    return isinstance(error, CheckpointError) and "\n" not in str(error)


def write_models(folder: Path) -> None:
    sizes = {"filters": (2, 2), "pooling": ((2, 4), (2, 4)), "rnn_cells": 2, "rnn_layers": 1}
    detector = CRNN(CRNNConfig(**sizes), DESED_CLASSES[:3], FeatureConfig(n_fft=256, hop=160, n_mels=16))
    detector.save(folder / "detector", steps=1)
    small = {"n_mels": 16, "bottleneck": 2, "hidden": 2, "skip": 2, "blocks": 2, "repeats": 1}
    Separator(MaskNetwork(MaskNetworkConfig(n_sources=2, **small)), detector).save(folder / "separator")
    told = MaskNetworkConfig(n_sources=3, conditioning=condition_size(detector), **small)
    ClassSeparator(MaskNetwork(told), detector, merge="own").save(folder / "class_separator")
    denoiser = Denoiser(DenoiserConfig(bottleneck=2, hidden=2, blocks=2, repeats=1))
    DenoisedDetector(denoiser, detector).save(folder / "denoiser")
    state = {
        "global_step": 3,
        "state_dict": {"weight": torch.ones(2)},
        "loops": {"fit": [1, (2.5, None)], 0: True},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}],
    }
    SafetensorsCheckpointIO(10).save_checkpoint(state, folder / "training")


def prepare(folder: Path) -> Callable[[Random, Path], None]:
    models = folder / "models"
    models.mkdir()
    torch.manual_seed(0)
    write_models(models)
    files = {path.name: path.read_bytes() for path in sorted(models.iterdir())}

    def case(random: Random, own: Path) -> None:
        name = random.choice(list(files))
        data = files[name]
        change = random.choice([raw, header, metadata, metadata])
        path = own / "x.safetensors"
        path.write_bytes(change(random, data, files[random.choice(list(files))]))
        if name == "training":
            SafetensorsCheckpointIO(10).load_checkpoint(path)
        else:
            open_model(path)

    return case


def raw(random: Random, data: bytes, other: bytes) -> bytes:
    return mutate(random, data, other)


def taken_apart(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and its tensors' bytes."""
    (n_header,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + n_header]), data[8 + n_header :]


def joined(header: Any, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def header(random: Random, data: bytes, other: bytes) -> bytes:
    """Other types, shapes and places of tensors."""
    content, body = taken_apart(data)
    return joined(mutate_tree(random, content), body)


def metadata(random: Random, data: bytes, other: bytes) -> bytes:
    """Another description of what is in the file."""
    content, body = taken_apart(data)
    part = random.choice(["task_aware", "content", "content", "content"])
    text = content["__metadata__"][part]
    if random.random() < 0.15:
        changed = mutate(random, text.encode()).decode(errors="replace")
    else:
        changed = random.choice([json.dumps] * 20 + [lambda _: "[" * 10000, lambda _: "9" * 5000])(
            mutate_tree(random, json.loads(text))
        )
    content["__metadata__"][part] = changed
    return joined(content, body)
