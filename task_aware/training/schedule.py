"""Schedules over the steps of a run: warm-up, cosine decay and running averages of weights."""

from __future__ import annotations

import math

import torch


def warmup(step: int, n_steps: int) -> float:
    """The exponential ramp `exp(-5 (1 - step / n_steps)^2)`, from almost 0 to 1 (Delphin-Poulat and Plapous, 2019)."""
    return 1.0 if step >= n_steps else math.exp(-5 * (1 - step / n_steps) ** 2)


def cosine(step: int, n_steps: int) -> float:
    """Half a cosine from 1 at step 0 to 0 at `n_steps`; then 0."""
    return 0.0 if step >= n_steps else 0.5 * (1 + math.cos(math.pi * step / n_steps))


def seed_step(seed: int, step: int, rank: int) -> None:
    """Makes what a step draws at random a function of (seed, step, rank), so that a resumed run draws the same."""
    torch.manual_seed((seed * 1_000_003 + step) * 4096 + rank)


@torch.no_grad()
def update_average(average: torch.nn.Module, current: torch.nn.Module, step: int, decay: float) -> None:
    """Moves `average` towards `current` with decay `min(1 - 1 / (step + 1), decay)` (Tarvainen and Valpola, 2017)."""
    alpha = min(1 - 1 / (step + 1), decay)
    torch._foreach_lerp_(list(average.parameters()), list(current.parameters()), 1 - alpha)
    for kept, buffer in zip(average.buffers(), current.buffers(), strict=True):
        kept.copy_(buffer)
