"""Two processes that train together, against one with all their clips."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from task_aware.data.batches import RealBatch, StrongBatch, TrainingBatch
from task_aware.models.system import Separator
from task_aware.training.config import LossConfig, OptimiserConfig
from task_aware.training.separator import TaskAwareModule

PROCESSES = 2


class Step(nn.Module):
    """A training step as a module's forward, which is what the reducer of gradients wraps."""

    def __init__(self, separator: Path) -> None:
        super().__init__()
        weights = LossConfig(mse=1.0, deep_feature=1.0, weak=1.0, teacher=1.0, frame=1.0)
        schedule = OptimiserConfig(separation_share=0.0, anchor_share=0.0)
        self.module = TaskAwareModule(Separator.from_checkpoint(separator), weights, schedule).train()
        self.module.log = self.module.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
        with torch.no_grad():
            for weight in self.module.teacher.parameters():
                weight.add_(0.05)  # a teacher that differs

    def forward(self, batch: TrainingBatch) -> Tensor:
        return self.module.training_step(batch, 0)

    def gradients(self) -> dict[str, Tensor]:
        return {name: p.grad for name, p in self.module.system.mask_network.named_parameters() if p.grad is not None}


def make_batch(clips: slice) -> TrainingBatch:
    """Some clips of one fixed batch of four mixtures, four weak and four unlabelled clips."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return 0.1 * torch.randn(4, *shape, generator=generator)[clips]

    rirs = noise(3, 40)
    rirs[..., 0] = 1
    labels = torch.tensor([[0, 4, 5]]).expand(4, 3)[clips]
    frames = (torch.rand(4, 6, 10, generator=generator) < 0.3).float()[clips]
    strong = StrongBatch(noise(3, 8000), rirs, 1 + noise(3), noise(8000), labels, frames)
    weak, unlabelled = (RealBatch(noise(8000), torch.eye(10)[:4][clips]) for _ in range(2))
    return TrainingBatch(strong, weak, unlabelled)


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=PROCESSES
    )
    # the last block's trunk has no reader; detector and teacher ask for no gradient and are left alone
    step = DistributedDataParallel(Step(folder / "separator.safetensors"), find_unused_parameters=True)
    step(make_batch(slice(rank, None, PROCESSES))).backward()
    torch.save(step.module.gradients(), folder / f"gradients_{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one_with_twice_the_batch(small_separator, tmp_path):
    small_separator.save(tmp_path / "separator.safetensors")
    torch.multiprocessing.spawn(work, args=(tmp_path,), nprocs=PROCESSES)
    alone = Step(tmp_path / "separator.safetensors")
    alone(make_batch(slice(None))).backward()
    wanted = alone.gradients()
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for rank in range(PROCESSES):
        found = torch.load(tmp_path / f"gradients_{rank}.pt", weights_only=True)
        assert any(gradient.any() for gradient in found.values())
        for name, gradient in wanted.items():
            assert (found[name] - gradient).abs().max() < 1e-5 * largest
