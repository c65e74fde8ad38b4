"""The dynamic mixer: hours of mixtures made per second, on the host (plan, pack) and on the training device."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from task_aware import ops
from task_aware.data.audio import read_audio
from task_aware.data.mixing import DynamicMixer, MixturePlan
from task_aware.data.mixing_config import MixingConfig
from task_aware.data.packing import DryMixtures, PackedMixtures, Stretch
from task_aware.models.features import FeatureConfig
from task_aware.synthesis import open_corpus

from .measuring import HOST_BEHIND, Clock
from .side_by_side import Report, Settings

N_SOURCES = 5
SAMPLE_RATE = 16000


class Shape(NamedTuple):
    """Mixtures of a batch and their length."""

    B: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.B} mixtures of {self.seconds:g} s"


def reference(mixer: DynamicMixer, plan: MixturePlan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources [S, N], responses [S, L] and background [N] of a plan, placed one by one in float64, from the files."""
    soundbank, rirs = mixer.soundbank, mixer.rirs
    assert rirs is not None and plan.background is not None

    def stretch(at: Stretch) -> np.ndarray:
        samples = read_audio(soundbank.folder / at.path, SAMPLE_RATE)[at.first : at.first + at.length]
        return at.scale * (samples / soundbank.read(at.path).scale)

    sources = np.zeros((N_SOURCES, mixer.n_samples))
    responses = np.zeros((N_SOURCES, rirs.max_samples))
    for at in plan.sources:
        sources[at.row, at.start : at.start + at.length] += stretch(at)
    for at in plan.rirs:
        response = read_audio(rirs.folder / at.path, SAMPLE_RATE, channel=0)[: rirs.max_samples].astype(np.float64)
        responses[at.row, : len(response)] = response / np.linalg.norm(response)
    return sources, responses, stretch(plan.background)  # none of the corpus is so short that it is repeated


def check(mixer: DynamicMixer, plans: list[MixturePlan], dry: DryMixtures) -> None:
    """Checks that the data on the device match the files, up to the rounding of float32."""
    for b, plan in enumerate(plans):
        expected = reference(mixer, plan)
        for found, exact in zip((dry.sources[b], dry.rirs[b], dry.background[b]), expected, strict=True):
            assert np.abs(found.cpu().numpy() - exact).max() <= 1e-6 * np.abs(exact).max()


@pytest.mark.shapes([Shape(4, 10.0), Shape(12, 10.0)], quick=[Shape(2, 1.0)], full=[Shape(32, 10.0)])
def test_mixer(device: str, report: Report, settings: Settings, shape: Shape) -> None:
    corpus = open_corpus(None, None, sample_rate=SAMPLE_RATE, tiny=settings.quick)
    mixer = corpus.mixer(MixingConfig(), n_sources=N_SOURCES, seconds=shape.seconds, seed=0)
    front_end = FeatureConfig(sample_rate=SAMPLE_RATE)
    plans = [mixer.plan(index) for index in range(shape.B)]
    packed = mixer.pack(plans)
    if device == "cuda":
        packed = packed.pin_memory()
    on_device = packed.to(device)
    dry = on_device.unpack()
    check(mixer, plans, dry)
    mixed = ops.reverb_mix(*dry)

    def mel() -> Tensor:
        front_end.mel(mixed.images)
        return front_end.mel(mixed.mixture)

    def step(mixtures: PackedMixtures) -> Tensor:
        made = ops.reverb_mix(*mixtures.to(device).unpack())
        front_end.mel(made.images)
        return front_end.mel(made.mixture)

    rounds = settings.rounds[1] if settings.quick else 20
    clock = Clock(device)
    host = Clock("cpu")
    next_index = iter(range(shape.B, 10**9))

    def plan() -> list[MixturePlan]:
        return [mixer.plan(next(next_index)) for _ in range(shape.B)]

    parts: dict[str, tuple[Clock, Callable[[], object]]] = {
        "host: plan": (host, plan),
        "host: pack": (host, lambda: mixer.pack(plans)),
        "device: copy": (clock, lambda: packed.to(device)),
        "device: place": (clock, on_device.unpack),
        "device: reverb_mix": (clock, lambda: ops.reverb_mix(*dry)),
        "device: mel": (clock, mel),
        "device: all": (clock, lambda: step(packed)),
    }
    with torch.no_grad():
        seconds, ahead = {}, {}
        for name, (clock, run) in parts.items():
            seconds[name] = statistics.median(timed(clock, run, rounds))
            ahead[name] = clock.host_ahead
    in_host = seconds["host: plan"] + seconds["host: pack"]
    hours = shape.B * shape.seconds / 3600
    lines = [
        f"{name:<20}{1000 * value:10.3f} ms{'' if ahead[name] else f'  {HOST_BEHIND}'}"
        for name, value in seconds.items()
    ]
    lines.append(
        f"{packed.samples.nbytes / 2**20:.1f} MiB travel; placed they are {dry.sources.nbytes / 2**20:.1f} MiB"
    )
    for name, value in (("one host core", in_host), (f"the {device}", seconds["device: all"])):
        lines.append(f"{name} makes {hours / value:.2f} hours of mixture a second")
    report.sections.append((f"mixer, {shape}, {device}", "\n".join(lines)))


def timed(clock: Clock, run: Callable[[], object], rounds: int) -> list[float]:
    """Durations of some calls in seconds, without the first one."""
    run()
    return [clock.seconds(run) for _ in range(rounds)]
