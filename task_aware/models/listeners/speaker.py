"""Resemblyzer, an encoder of voices, from the weights in its package: a unit vector for each 1.6 s.

The package computes mel-spectrograms with NumPy and cuts silence out, so that times are lost. This does neither.
The package itself is not imported, as it needs more than its weights do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from task_aware.models.detector import Detection
from task_aware.models.listener import embedded
from task_aware.models.listeners import weights_of

#: The package's mel-spectrogram: samples of its window and hop, and bands.
N_FFT, HOP, BANDS = 400, 160, 40

#: Mel frames of an utterance that is encoded, and between two.
LENGTH, STEP = 160, 80

#: Quieter clips are raised to this level (-30 dB), the quietest ones by at most 50 dB.
LEVEL, QUIETEST = 10 ** (-30 / 20), 1e-4


class SpeakerEncoder(nn.Module):
    """An embedding without classes: a unit vector `[B, K, 256]` for each 1.6 s, 0.8 s apart."""

    bank: Tensor
    window: Tensor

    labels = ()
    sample_rate = 16000
    frame_seconds = HOP / sample_rate

    def __init__(self) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks  # slow to import

        bank = melscale_fbanks(N_FFT // 2 + 1, 0.0, 8000.0, BANDS, self.sample_rate, norm="slaney", mel_scale="slaney")
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        self.lstm = nn.LSTM(BANDS, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def mel(self, waveform: Tensor) -> Tensor:
        """The package's mel-spectrogram, power without a logarithm: `[B, N]` -> `[B, T, 40]`."""
        spectrum = torch.stft(waveform, N_FFT, HOP, window=self.window, pad_mode="constant", return_complex=True)
        return (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2) @ self.bank

    def encode(self, mel: Tensor) -> Tensor:
        """Unit vectors `[B, 256]` of utterances `[B, T, 40]`."""
        _, (state, _) = self.lstm(mel)
        vector = torch.relu(self.linear(state[-1]))
        return vector / (vector.square().sum(1, keepdim=True) + 1e-20).sqrt()

    def forward(self, waveform: Tensor) -> Detection:
        """Hears waveforms `[B, N]`; a last utterance is filled up with silence."""
        level = (waveform.square().mean(1, keepdim=True) + QUIETEST**2).sqrt()
        mel = self.mel(waveform * (LEVEL / level).clamp_min(1))
        n_frames = mel.shape[1]
        steps = max(0, -(-(n_frames - LENGTH) // STEP))
        padded = nn.functional.pad(mel, (0, 0, 0, LENGTH + steps * STEP - n_frames))
        utterances = padded.unfold(1, LENGTH, STEP).transpose(2, 3)  # [B, K, 160, 40]
        vectors = self.encode(utterances.flatten(0, 1)).unflatten(0, utterances.shape[:2])
        return embedded([vectors], n_frames)


def make() -> SpeakerEncoder:
    """The network with the weights of Resemblyzer. Raises CheckpointError if the package is missing."""
    path = weights_of("resemblyzer", "pretrained.pt", install="resemblyzer")
    weights = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    encoder = SpeakerEncoder()
    encoder.load_state_dict({name: x for name, x in weights.items() if name.startswith(("lstm.", "linear."))})
    return encoder.eval()
