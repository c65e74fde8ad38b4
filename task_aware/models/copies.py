"""Copies of models to listen with, so that the caller's own model stays as it is."""

from __future__ import annotations

import copy
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def listening_copy(model: Module, device: torch.device | None = None) -> Module:
    """A copy of a model in evaluation mode; its weights are the model's own unless it must move to another device."""
    weights = [*chain(model.parameters(), model.buffers())]
    # what a layer computes from its weights and keeps (as of `weight_norm`) would refuse to be copied
    computed = [x for module in model.modules() for x in vars(module).values() if isinstance(x, Tensor)]
    if device is None or all(weight.device == _with_index(device) for weight in weights):
        return copy.deepcopy(model, {id(x): x for x in (*weights, *computed)}).eval()
    return copy.deepcopy(model, {id(x): x.detach().clone() for x in computed}).to(device).eval()


def _with_index(device: torch.device) -> torch.device:
    """The device as tensors on it have it: `cuda` is the current GPU."""
    return torch.empty(0, device=device).device
