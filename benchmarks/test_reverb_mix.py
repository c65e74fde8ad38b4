"""reverb_mix, compared with the fastest form of torch.fft, torchaudio, torch-audiomentations, scipy and cuDNN."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from task_aware import ops
from task_aware.ops.reverb_mix import fast_fft_length

from .side_by_side import Case, Implementation, SideBySide, peer


class Shape(NamedTuple):
    """Sizes of the sources `[B,S,N]`, length L of the responses, and whether the sources end halfway."""

    B: int
    S: int
    N: int
    L: int
    half_silent: bool = False

    def __str__(self) -> str:
        silence = ", half of each source silent" if self.half_silent else ""
        return f"[{self.B},{self.S},{self.N}] * {self.L}{silence}"


HEADLINE = Shape(12, 5, 160000, 16000)


def make_inputs(shape: Shape, device: str) -> tuple[Tensor, ...]:
    """Makes noise in rooms whose responses decay by 60 dB over L."""
    B, S, N, L, half_silent = shape
    decay = 10 ** (-3 * torch.arange(L, device=device) / L)
    rirs = torch.randn(B, S, L, device=device) * decay
    sources, gains = torch.randn(B, S, N, device=device), torch.rand(B, S, device=device)
    if half_silent:
        sources[..., N // 2 :] = 0
    return sources, rirs / rirs.norm(dim=-1, keepdim=True), gains, 0.1 * torch.randn(B, N, device=device)


def mix(wet: Tensor, gains: Tensor, background: Tensor) -> ops.Mixture:
    """Scales and sums the convolved sources."""
    images = gains[..., None] * wet
    return ops.Mixture(images, images.sum(1) + background)


def spectra(sources: Tensor, rirs: Tensor, gains: Tensor) -> tuple[Tensor, int]:
    """Spectra of the images at torch.fft's fastest length, with the gains applied to the (short) responses."""
    length = fast_fft_length(sources.shape[-1] + rirs.shape[-1] - 1)
    return torch.fft.rfft(sources, length) * torch.fft.rfft(gains[..., None] * rirs, length), length


def fft_mix(sources: Tensor, rirs: Tensor, gains: Tensor, background: Tensor) -> ops.Mixture:
    spectrum, length = spectra(sources, rirs, gains)
    images = torch.fft.irfft(spectrum, length)[..., : sources.shape[-1]]
    return ops.Mixture(images, images.sum(1) + background)


def fft_mixture(sources: Tensor, rirs: Tensor, gains: Tensor, background: Tensor) -> tuple[Tensor]:
    spectrum, length = spectra(sources, rirs, gains)
    return (torch.fft.irfft(spectrum.sum(1), length)[..., : sources.shape[-1]] + background,)


def make_peers(device: str, backward: bool) -> dict[str, Implementation]:
    peers: dict[str, Implementation] = {"torch.fft, fewest passes": fft_mix}
    if torchaudio := peer("torchaudio.functional"):
        peers["torchaudio.fftconvolve"] = lambda sources, rirs, gains, background: mix(
            torchaudio.fftconvolve(sources, rirs)[..., : sources.shape[-1]], gains, background
        )
    if audiomentations := peer("torch_audiomentations.utils.convolution"):
        peers["torch-audiomentations"] = lambda sources, rirs, gains, background: mix(
            audiomentations.convolve(sources, rirs)[..., : sources.shape[-1]], gains, background
        )
    if device == "cuda" and (cudnn := peer("cudnn.ops")) and hasattr(cudnn, "fft_causal_conv1d"):
        peers["cudnn.ops.fft_causal_conv1d"] = lambda sources, rirs, gains, background: mix(
            cudnn.fft_causal_conv1d(sources.flatten(0, 1)[None], rirs.flatten(0, 1)).view_as(sources), gains, background
        )
    if device == "cpu" and not backward and (signal := peer("scipy.signal")):
        peers["scipy.signal.oaconvolve"] = lambda sources, rirs, gains, background: mix(
            torch.from_numpy(signal.oaconvolve(sources.numpy(), rirs.numpy(), axes=-1)[..., : sources.shape[-1]]),
            gains,
            background,
        )
    return peers


def make_case(shape: Shape, device: str, operator: str = "reverb_mix") -> Case:
    inputs = make_inputs(shape, device)
    sources, rirs, _, background = inputs
    return Case(
        operator,
        str(shape),
        inputs,
        bytes_forward=2 * sources.nbytes + rirs.nbytes + 2 * background.nbytes,
        tolerance=1e-5,
        differentiated=(0, 2),
        output_gradients=(torch.randn_like(sources), torch.randn_like(background)),
        bytes_backward=3 * sources.nbytes + rirs.nbytes + background.nbytes,
    )


def native(*inputs: Tensor) -> ops.Mixture:
    return ops.reverb_mix(*inputs, backend="native")


def compare(side_by_side: SideBySide, shape: Shape, *, backward: bool) -> None:
    side_by_side.compare(
        make_case(shape, side_by_side.device),
        native,
        ops.reverb_mix_reference,
        make_peers(side_by_side.device, backward),
        backward=backward,
    )


@pytest.mark.shapes(
    [
        *(Shape(4, 5, 160000, 16000), Shape(4, 5, 80000, 8000)),
        *(HEADLINE, HEADLINE._replace(half_silent=True)),
    ],
    quick=[Shape(2, 3, 4001, 300)],
    full=[Shape(4, 5, 160000, 32000)],
    headline=[HEADLINE],
)
def test_reverb_mix(side_by_side: SideBySide, shape: Shape) -> None:
    compare(side_by_side, shape, backward=False)


@pytest.mark.shapes([Shape(4, 5, 160000, 16000)], quick=[Shape(2, 3, 4001, 300)], full=[HEADLINE])
def test_mixture_alone(side_by_side: SideBySide, shape: Shape) -> None:
    """Without the images, torch.fft also needs only one inverse transform for all sources."""
    case = make_case(shape, side_by_side.device, "reverb_mix, mixture alone")
    sources, rirs, _, background = case.inputs
    assert sources is not None and rirs is not None and background is not None
    side_by_side.compare(
        replace(case, bytes_forward=sources.nbytes + rirs.nbytes + 2 * background.nbytes),
        lambda *inputs: (ops.reverb_mix(*inputs, images=False, backend="native"),),
        lambda *inputs: (ops.reverb_mix_reference(*inputs).mixture,),
        {"torch.fft, sum of spectra": fft_mixture},
    )


@pytest.mark.shapes([Shape(2, 5, 80000, 8000)], quick=[Shape(2, 3, 4001, 300)], full=[Shape(4, 5, 160000, 16000)])
def test_reverb_mix_backward(side_by_side: SideBySide, shape: Shape) -> None:
    """Gradients of the sources and the gains, which training does not need, but a learned mixer would."""
    compare(side_by_side, shape, backward=True)
