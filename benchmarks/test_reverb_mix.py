"""reverb_mix: against torchaudio's fftconvolve and, on the CPU, scipy's overlap-add convolution."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from task_aware import ops

from .side_by_side import Case, Implementation, SideBySide, peer


class Shape(NamedTuple):
    """Sizes of the sources `[B,S,N]` and length L of the room impulse responses."""

    B: int
    S: int
    N: int
    L: int

    def __str__(self) -> str:
        return f"[{self.B},{self.S},{self.N}] * {self.L}"


def make_inputs(shape: Shape, device: str) -> tuple[Tensor, ...]:
    """Noise in rooms whose response falls by 60 dB over L."""
    B, S, N, L = shape
    decay = 10 ** (-3 * torch.arange(L, device=device) / L)
    rirs = torch.randn(B, S, L, device=device) * decay
    sources, gains = torch.randn(B, S, N, device=device), torch.rand(B, S, device=device)
    return sources, rirs / rirs.norm(dim=-1, keepdim=True), gains, 0.1 * torch.randn(B, N, device=device)


def mix(wet: Tensor, gains: Tensor, background: Tensor) -> ops.Mixture:
    """What is left to do after a convolution."""
    images = gains[..., None] * wet
    return ops.Mixture(images, images.sum(1) + background)


def make_peers(device: str, backward: bool) -> dict[str, Implementation]:
    peers: dict[str, Implementation] = {}
    if torchaudio := peer("torchaudio.functional"):
        peers["torchaudio.fftconvolve"] = lambda sources, rirs, gains, background: mix(
            torchaudio.fftconvolve(sources, rirs)[..., : sources.shape[-1]], gains, background
        )
    if device == "cpu" and not backward and (signal := peer("scipy.signal")):
        peers["scipy.signal.oaconvolve"] = lambda sources, rirs, gains, background: mix(
            torch.from_numpy(signal.oaconvolve(sources.numpy(), rirs.numpy(), axes=-1)[..., : sources.shape[-1]]),
            gains,
            background,
        )
    return peers


def compare(side_by_side: SideBySide, shape: Shape, *, backward: bool) -> None:
    inputs = make_inputs(shape, side_by_side.device)
    sources, rirs, gains, background = inputs
    case = Case(
        "reverb_mix",
        str(shape),
        inputs,
        bytes_forward=2 * sources.nbytes + rirs.nbytes + 2 * background.nbytes,
        tolerance=1e-5,
        differentiated=(0, 2),
        output_gradients=(torch.randn_like(sources), torch.randn_like(background)),
        bytes_backward=3 * sources.nbytes + rirs.nbytes + background.nbytes,
    )
    side_by_side.compare(
        case,
        lambda *inputs: ops.reverb_mix(*inputs, backend="native"),
        ops.reverb_mix_reference,
        make_peers(side_by_side.device, backward),
        backward=backward,
    )


@pytest.mark.shapes(
    [Shape(4, 5, 160000, 16000), Shape(4, 5, 80000, 8000)],
    quick=[Shape(2, 3, 4001, 300)],
    full=[Shape(12, 5, 160000, 16000)],
)
def test_reverb_mix(side_by_side: SideBySide, shape: Shape) -> None:
    compare(side_by_side, shape, backward=False)


@pytest.mark.shapes([Shape(2, 5, 80000, 8000)], quick=[Shape(2, 3, 4001, 300)], full=[Shape(4, 5, 160000, 16000)])
def test_reverb_mix_backward(side_by_side: SideBySide, shape: Shape) -> None:
    """Gradients of the sources and the gains; training has no need of them, a learned mixer would."""
    compare(side_by_side, shape, backward=True)
