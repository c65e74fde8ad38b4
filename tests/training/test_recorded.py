"""Training steps recorded as CUDA graphs. Without a GPU a stand-in calls what it should have recorded."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from task_aware import train
from task_aware.models.system import Separator
from task_aware.training.config import LossConfig, OptimiserConfig
from task_aware.training.objectives import Stage
from task_aware.training.recorded import RecordedObjectives, batch_of, tensors_of
from task_aware.training.separator import TaskAwareModule

STAGES = [Stage(anchored=True, through_detector=False), Stage(False, False), Stage(False, True)]
ALL_TERMS = LossConfig(mse=1.0, deep_feature=1.0, weak=1.0, teacher=1.0, frame=1.0, own=1.0)

pytestmark = pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")


def make_module(separator, device: str = "cpu") -> TaskAwareModule:
    module = TaskAwareModule(copy.deepcopy(separator), ALL_TERMS, OptimiserConfig(), n_asked=10).to(device).train()
    with torch.no_grad():
        for weight in module.teacher.parameters():
            weight.add_(0.05)  # a teacher that differs
    return module


@pytest.fixture(params=["small_separator", "class_separator"])
def separator(request) -> Separator:
    """With free sources, and with those of classes."""
    return request.getfixturevalue(request.param)


def record_steps(module: TaskAwareModule) -> RecordedObjectives:
    return RecordedObjectives(module.objectives, module.system.mask_network)


class Recorder:
    """Stands in for `torch.cuda.make_graphed_callables`: a replay sees what was copied into the recorded tensors."""

    def __init__(self) -> None:
        self.recordings = 0

    def __call__(self, objectives, recorded, *, allow_unused_input):
        assert allow_unused_input  # nothing reads the last block's trunk
        self.recordings += 1

        def replay(*tensors):
            for kept, new in zip(recorded, tensors, strict=True):
                kept.copy_(new)
            return objectives(*recorded)

        return replay


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    stand_in = Recorder()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", stand_in)
    return stand_in


@pytest.mark.parametrize("absent", [(), ("strong",), ("weak", "unlabelled")])
def test_a_batch_and_its_tensors(make_batch, absent):
    batch = make_batch()._replace(**dict.fromkeys(absent))
    tensors = tensors_of(batch)
    again = batch_of(tensors, batch)
    assert [type(part) for part in again] == [type(part) for part in batch]
    assert all(new is old for new, old in zip(tensors_of(again), tensors, strict=True))


def steps(module: TaskAwareModule, objectives, batches, stages) -> list[tuple[float, dict[str, float]]]:
    """The losses of a few steps of plain gradient descent."""
    optimiser = torch.optim.SGD(module.system.mask_network.parameters(), 0.1)
    seen = []
    for batch, stage in zip(batches, stages, strict=True):
        total, terms = objectives(batch, stage)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        seen.append((float(total.detach()), {name: float(value.detach()) for name, value in terms.items()}))
    return seen


def check_same_steps(separator, make_batch, device: str) -> None:
    """Recorded and plain steps, through all stages and with new data in each, have the same losses and weights."""
    stages = [stage for stage in STAGES for _ in range(3)]
    made = [make_batch(k) for k in range(len(stages))]
    batches = [batch_of([tensor.to(device) for tensor in tensors_of(batch)], batch) for batch in made]
    plain, recorded = make_module(separator, device), make_module(separator, device)
    expected = steps(plain, plain.objectives, batches, stages)
    found = steps(recorded, record_steps(recorded), batches, stages)
    for (total, terms), (other_total, other_terms) in zip(expected, found, strict=True):
        assert other_total == pytest.approx(total, rel=1e-4)
        assert other_terms == pytest.approx(terms, rel=1e-4)
    assert len({total for total, _ in expected}) == len(stages)  # or a stale batch would pass
    for (name, weight), other in zip(
        plain.system.mask_network.named_parameters(), recorded.system.mask_network.parameters(), strict=True
    ):
        torch.testing.assert_close(other, weight, atol=1e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


def test_recorded_steps_are_those_of_the_module(separator, make_batch, recorder):
    check_same_steps(separator, make_batch, "cpu")
    assert recorder.recordings == len(STAGES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_recorded_steps_are_those_of_the_module_on_a_gpu(separator, make_batch, backend, monkeypatch):
    # cuDNN rounds to TF32 by default, which differs between algorithms by more than these losses may
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    separator.backend = separator.mask_network.backend = separator.detector.backend = backend
    check_same_steps(separator, make_batch, "cuda")


def test_another_shape_is_recorded_anew(small_separator, make_batch, recorder):
    objectives = record_steps(make_module(small_separator))
    for seconds in (0.5, 0.5, 1.0, 1.0, 0.5):
        objectives(make_batch(seconds=seconds), STAGES[1])
    assert recorder.recordings == 3
    objectives(make_batch()._replace(weak=None), STAGES[1])
    assert recorder.recordings == 4


class Memory:
    """What a graph holds."""


@pytest.fixture
def memories(monkeypatch) -> list[weakref.ref[Memory]]:
    """What recordings hold, as torch has it: the recorded module's forward knows its graph, and its module."""
    made = []

    def record(objectives, recorded, *, allow_unused_input):
        memory, forward = Memory(), objectives.forward
        objectives.forward = lambda *tensors: (memory, forward(*tensors))[1]
        made.append(weakref.ref(memory))
        return objectives

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    gc.collect()
    gc.disable()  # or a collection may come by chance
    yield made
    gc.enable()


def test_one_recording_s_memory_is_the_next_one_s(small_separator, make_batch, memories):
    objectives = record_steps(make_module(small_separator))
    for count, stage in enumerate(STAGES):
        assert sum(memory() is not None for memory in memories) == min(count, 1)
        objectives(make_batch(), stage)
    assert [memory() is not None for memory in memories] == [False, False, True]


def test_what_follows_the_training_has_the_recording_s_memory(small_separator, make_batch, memories):
    module = TaskAwareModule(small_separator, ALL_TERMS, OptimiserConfig(), cuda_graph=True)
    assert isinstance(module.recorded, RecordedObjectives)
    module.recorded(make_batch(), STAGES[1])
    module.on_train_end()
    assert module.recorded is None and memories[0]() is None


def test_a_recording_that_failed_is_made_again(small_separator, make_batch, recorder, monkeypatch):
    objectives = record_steps(make_module(small_separator))
    objectives(make_batch(), STAGES[1])
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(torch.cuda, "make_graphed_callables", lambda *_, **__: 1 / 0)
        objectives(make_batch(), STAGES[2])
    objectives(make_batch(), STAGES[1])
    assert recorder.recordings == 2


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_the_forward_is_recorded_in_the_step_s_precision_and_the_backward_outside(
    small_separator, make_batch, monkeypatch, dtype
):
    def precision() -> torch.dtype | None:
        return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None

    module, seen = make_module(small_separator), []
    monkeypatch.setattr(module, "objectives", lambda batch, stage: seen.append(precision()))

    def record(objectives, recorded, *, allow_unused_input):
        assert precision() is None
        objectives(*recorded)
        assert precision() is None
        return objectives

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", record)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    with torch.autocast("cuda", dtype, enabled=dtype is not None):
        record_steps(module)(make_batch(), STAGES[2])
        assert precision() == dtype
    assert seen == [dtype] * 2  # recorded, and the step itself


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_step_asks_for_no_value(separator, make_batch, stage, backend):
    """Tensors without values, of which `.item()`, a boolean index or a branch would be an error."""
    separator.backend = separator.mask_network.backend = separator.detector.backend = backend
    module = make_module(separator)
    module.objectives(make_batch(), stage)  # tables are made once, with values
    with FakeTensorMode(allow_non_fake_inputs=True):
        total, _ = module.objectives(make_batch(), stage)
        grads = torch.autograd.grad(total, list(module.system.mask_network.parameters()), allow_unused=True)
    with pytest.raises(DataDependentOutputException):
        total.item()
    assert any(grad is not None for grad in grads)


def test_a_recording_needs_one_gpu(tmp_path, monkeypatch):
    command = ["--cuda-graph", f"--out={tmp_path}"]
    with pytest.raises(ValueError, match="one GPU, but this run has none"):
        train.main([*command, "--accelerator=cpu"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="one GPU, but devices is 2"):
        train.main([*command, "--devices=2"])
    with pytest.raises(
        ValueError, match="n_sources is 7; with more than 6 sources, --no-fused searches the permutation on the host"
    ):
        train.main([*command, "--config=separation", "--no-fused", "--separator.n_sources=7"])
