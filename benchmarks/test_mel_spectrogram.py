"""mel_spectrogram, compared with torchaudio's MelSpectrogram and, on the CPU, librosa."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from task_aware import ops

from .side_by_side import Case, Implementation, SideBySide, peer

#: The front end of the baseline, in the words that torchaudio and librosa share.
FRONT_END = {
    "n_fft": 2048,
    "hop_length": 255,
    "n_mels": 128,
    "power": 1.0,
    "norm": None,
    "pad_mode": "reflect",
}


HEADLINE = (12, 160000)


def make_peers(device: str, backward: bool) -> dict[str, Implementation]:
    peers: dict[str, Implementation] = {}
    if transforms := peer("torchaudio.transforms"):
        transform = transforms.MelSpectrogram(
            sample_rate=16000,
            f_min=0.0,
            f_max=8000.0,
            window_fn=torch.hamming_window,
            wkwargs={"periodic": False},
            mel_scale="slaney",
            **FRONT_END,
        ).to(device)
        peers["torchaudio MelSpectrogram"] = lambda waveform: (transform(waveform),)
    if device == "cpu" and not backward and (librosa := peer("librosa")):
        window = np.hamming(2048).astype(np.float32)

        def with_librosa(waveform: Tensor) -> tuple[Tensor]:
            mel = librosa.feature.melspectrogram(
                y=waveform.numpy(), sr=16000, fmin=0.0, fmax=8000.0, window=window, htk=False, **FRONT_END
            )
            return (torch.from_numpy(mel),)

        peers["librosa melspectrogram"] = with_librosa
    return peers


def make_case(shape: tuple[int, int], device: str) -> Case:
    waveform = torch.randn(shape, device=device)
    mel = torch.randn(shape[0], 128, shape[1] // 255 + 1, device=device)
    return Case(
        "mel_spectrogram",
        f"[{shape[0]},{shape[1]}]",
        (waveform,),
        bytes_forward=waveform.nbytes + mel.nbytes,
        tolerance=1e-5,
        differentiated=(0,),
        output_gradients=(mel,),
        bytes_backward=2 * waveform.nbytes + mel.nbytes,
    )


def native(waveform: Tensor) -> tuple[Tensor]:
    return (ops.mel_spectrogram(waveform, backend="native"),)


def compare(side_by_side: SideBySide, shape: tuple[int, int], *, backward: bool) -> None:
    side_by_side.compare(
        make_case(shape, side_by_side.device),
        native,
        lambda x: (ops.mel_spectrogram_reference(x),),
        make_peers(side_by_side.device, backward),
        backward=backward,
    )


@pytest.mark.shapes([HEADLINE, (1, 160000)], quick=[(2, 8001)], full=[(72, 160000)], headline=[HEADLINE])
def test_mel_spectrogram(side_by_side: SideBySide, shape: tuple[int, int]) -> None:
    compare(side_by_side, shape, backward=False)


@pytest.mark.shapes([(4, 160000)], quick=[(2, 8001)], full=[HEADLINE])
def test_mel_spectrogram_backward(side_by_side: SideBySide, shape: tuple[int, int]) -> None:
    """The gradient of the waveform, which training does not need."""
    compare(side_by_side, shape, backward=True)
