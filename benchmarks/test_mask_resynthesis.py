"""mask_resynthesis, compared with torch.stft, the masks, and torch.istft."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from task_aware import ops

from .side_by_side import Case, Implementation, SideBySide

#: Clips, sources and samples: a batch of short clips for a listener of waveforms.
HEADLINE = (8, 5, 80000)
N_FFT, HOP, BANDS = 2048, 255, 128


def make_case(shape: tuple[int, int, int], device: str) -> Case:
    B, S, N = shape
    waveform = torch.randn(B, N, device=device)
    masks = torch.rand(B, S, BANDS, N // HOP + 1, device=device)
    sources = torch.randn(shape, device=device)
    return Case(
        "mask_resynthesis",
        f"[{B},{S},{N}]",
        (waveform, masks),
        bytes_forward=waveform.nbytes + masks.nbytes + sources.nbytes,
        tolerance=1e-5,
        differentiated=(1,),
        output_gradients=(sources,),
        bytes_backward=waveform.nbytes + masks.nbytes + sources.nbytes,
    )


def native(waveform: Tensor, masks: Tensor) -> tuple[Tensor]:
    return (ops.mask_resynthesis(waveform, masks, backend="native"),)


def reference(waveform: Tensor, masks: Tensor) -> tuple[Tensor]:
    return (ops.mask_resynthesis_reference(waveform, masks),)


def make_peers(device: str) -> dict[str, Implementation]:
    """What one writes without this operator; its window and weights are made once."""
    window = torch.hamming_window(N_FFT, periodic=False, device=device)
    weights = ops.band_weights(device=device).float()

    def stft_and_istft(waveform: Tensor, masks: Tensor) -> tuple[Tensor]:
        spectrum = torch.stft(waveform, N_FFT, HOP, window=window, return_complex=True)
        masked = (weights @ masks) * spectrum[:, None]
        sources = torch.istft(masked.flatten(0, 1), N_FFT, HOP, window=window, length=waveform.shape[-1])
        return (sources.unflatten(0, masks.shape[:2]),)

    return {"torch.stft and torch.istft": stft_and_istft}


@pytest.mark.shapes([HEADLINE, (1, 5, 160000)], quick=[(2, 2, 8001)], full=[(12, 10, 160000)], headline=[HEADLINE])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "both"])
def test_mask_resynthesis(side_by_side: SideBySide, shape: tuple[int, int, int], backward: bool) -> None:
    device = side_by_side.device
    side_by_side.compare(make_case(shape, device), native, reference, make_peers(device), backward=backward)
