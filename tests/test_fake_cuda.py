"""What a GPU would be asked to do: tensors without values that claim to be on one, where there may be none."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from task_aware import ops
from task_aware.data.batches import TrainingBatch
from task_aware.models.causal import start_stream
from task_aware.models.detector import freeze
from task_aware.ops import _dispatch, _extension
from task_aware.training.config import LossConfig, OptimiserConfig
from task_aware.training.objectives import Stage
from task_aware.training.recorded import batch_of, tensors_of
from task_aware.training.separator import TaskAwareModule

STAGES = [Stage(anchored=True, through_detector=False), Stage(False, False), Stage(False, True)]


class Recurrences:
    """Stands in for torch's recurrent kernels, which a fake tensor cannot reach, and keeps what each was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[set[torch.dtype], bool]] = []

    def gru(self, x: Tensor, state: Tensor, weights: list[Tensor], *options: Any) -> tuple[Tensor, Tensor]:
        self.seen.append(({x.dtype, state.dtype, weights[0].dtype}, torch.is_autocast_enabled("cuda")))
        width = state.shape[-1] * (2 if options[4] else 1)
        return x.mean(-1, keepdim=True).expand(*x.shape[:-1], width), state

    def lstm(self, x: Tensor, states: tuple[Tensor, Tensor], weights: list[Tensor], *options: Any) -> Any:
        return *self.gru(x, states[0], weights, *options), self.gru(x, states[1], weights, *options)[1]


class NothingFromTheHost(TorchDispatchMode):
    """Refuses copies between host and GPU, which a recording of a CUDA graph does not allow."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given, made = (
            {x.device.type for x in tree_leaves(tree) if isinstance(x, Tensor)} for tree in ((args, kwargs), out)
        )
        if made and made != given and "cpu" in given | made and "cuda" in given | made:
            raise AssertionError(f"{func} copies from {given} to {made}")
        return out


@pytest.fixture(autouse=True)
def recurrences(monkeypatch: pytest.MonkeyPatch) -> Recurrences:
    """A GPU with all kernels, whose tables are without values too, and kept from call to call as others are."""
    stand_in = Recurrences()
    monkeypatch.setattr("torch.nn.modules.rnn._VF", stand_in)
    monkeypatch.setattr(_extension, "extension", dataclasses.replace(_extension.extension, cuda=True))
    monkeypatch.setattr(_dispatch, "_check_architecture", lambda operation, index: None)
    for module, name in (
        ("mel_spectrogram", "_cached_tables"),
        ("_assignment", "_permutations"),
        ("reverb_mix", "_roots"),
    ):
        module = importlib.import_module(f"task_aware.ops.{module}")
        monkeypatch.setattr(module, name, functools.cache(inspect.unwrap(getattr(module, name))))
    return stand_in


@pytest.fixture(params=[None, torch.bfloat16], ids=["float32", "autocast"])
def autocast(request: pytest.FixtureRequest) -> Iterator[torch.dtype | None]:
    """Set by hand, since `torch.autocast` does nothing where there is no GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", request.param is not None)
    torch.set_autocast_dtype("cuda", request.param or before[1])
    yield request.param
    torch.set_autocast_enabled("cuda", before[0])
    torch.set_autocast_dtype("cuda", before[1])


def without_values() -> FakeTensorMode:
    return FakeTensorMode(allow_non_fake_inputs=True)


def on_cuda(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")


def module_on_cuda(module: nn.Module) -> nn.Module:
    """The module with fake weights and buffers in place of its own; `nn.Module.to` does not take these."""
    for part in module.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(on_cuda(weight), weight.requires_grad))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, on_cuda(buffer))
    return module


def batch_on_cuda(batch: TrainingBatch) -> TrainingBatch:
    return batch_of([on_cuda(tensor) for tensor in tensors_of(batch)], batch)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_step_copies_nothing_between_host_and_gpu(small_separator, make_batch, backend, autocast):
    if backend == "native" and not _extension.extension.cpu:
        pytest.skip("no schemas without the native library")
    small_separator.backend = backend
    small_separator.mask_network.backend = small_separator.detector.backend = backend
    every_term = LossConfig(mse=1.0, deep_feature=1.0, weak=1.0, teacher=1.0, frame=1.0)
    module = TaskAwareModule(small_separator, every_term, OptimiserConfig()).train()
    batch = make_batch()
    with without_values():
        module, batch = module_on_cuda(module), batch_on_cuda(batch)
        module.objectives(batch, STAGES[-1])  # tables are made once, before anything is recorded
        for stage in STAGES:
            with NothingFromTheHost():
                total, terms = module.objectives(batch, stage)
            assert total.device.type == "cuda"
            assert {term.dtype for term in terms.values()} == {torch.float32}


@pytest.mark.parametrize(
    "copy", [lambda x: torch.tensor([1], device=x.device), Tensor.cpu, lambda x: x.copy_(torch.zeros(3))]
)
def test_copies_are_noticed(copy):
    with without_values(), NothingFromTheHost():
        x = torch.empty(3, device="cuda")
        x + torch.arange(3, device="cuda")
        with pytest.raises(AssertionError, match="copies from"):
            copy(x)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_detectors_recurrence_keeps_its_precision(small_detector, recurrences, frozen, autocast):
    """cuDNN's own computes in float16 within any autocast."""
    detector = freeze(small_detector) if frozen else small_detector.train()
    with without_values():
        detection = module_on_cuda(detector)(torch.empty(2, 32, 40, device="cuda"))
    assert recurrences.seen == [({torch.float32}, False)]
    assert detection.activations[-1].dtype == torch.float32
    assert detection.activations[0].dtype == (autocast or torch.float32)


def test_the_detectors_recurrence_may_be_our_own(small_detector, recurrences, autocast):
    """Which no GPU has compared with cuDNN's yet."""
    if not _extension.extension.cpu:
        pytest.skip("no schemas without the native library")
    assert not small_detector.gru_on_cuda
    small_detector.gru_on_cuda = True
    with without_values(), NothingFromTheHost():
        detection = module_on_cuda(freeze(small_detector))(torch.empty(2, 32, 40, device="cuda"))
    assert recurrences.seen == []
    assert detection.frame.dtype == torch.float32


def test_so_does_that_of_a_stream(causal_detector, recurrences, autocast):
    start_stream(causal_detector)
    with without_values():
        detector = module_on_cuda(causal_detector)
        for _ in range(2):
            detector(torch.empty(1, 32, 40, device="cuda"))
    assert recurrences.seen == [({torch.float32}, False)] * 2
    assert detector.rnn.memory.dtype == torch.float32


def test_so_does_any_frozen_detectors(recurrences, autocast):
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.LSTM(4, 4, batch_first=True)
            self.second = nn.GRU(4, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = x.to(autocast or x.dtype)
            state = x.new_zeros(1, len(x), 4)
            x, _ = self.first(x, (state, state))
            return self.second(x.to(state.dtype), hx=state)[0]

    own = freeze(Own())
    with without_values():
        out = module_on_cuda(own)(torch.empty(2, 3, 4, device="cuda"))
    assert recurrences.seen == [({torch.float32}, False)] * 3
    assert out.dtype == torch.float32


@pytest.mark.parametrize("kind", ["mse", "l1", "bce", "snr", "si_sdr"])
def test_the_permutation_is_found_in_float32(kind, autocast):
    with without_values():
        estimates, targets = torch.empty(2, 3, 4, device="cuda"), torch.empty(2, 3, 4, device="cuda")
        assert ops.pit_loss_reference(estimates.bfloat16(), targets, kind=kind).loss.dtype == torch.float32
