"""silero-vad, a detector of voices, from the weights in its package: speech each 32 ms.

The package runs TorchScript that takes one chunk at a time and keeps a state. This computes the same for all chunks at
once, and has a gradient on silence too. The package itself is not imported, as it sets torch to one thread.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from task_aware.models.detector import Detection
from task_aware.models.listeners import weights_of

#: Samples of a chunk, and of the context before it.
CHUNK, CONTEXT = 512, 64

#: Added to the power of a bin: the gradient of a root is infinite at 0. With 1e-12, probabilities near silence move by
#: up to 6e-4; with this by less than 1e-6.
SMALLEST_POWER = 1e-20


class SileroVAD(nn.Module):
    """The network for 16 kHz: a Fourier transform, four convolutions, and an LSTM over the chunks of a clip."""

    labels = ("Speech",)
    sample_rate = 16000
    frame_seconds = CHUNK / sample_rate

    def __init__(self) -> None:
        super().__init__()
        self.stft = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, 3, stride, padding=1)
            for before, after, stride in ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1))
        )
        self.lstm = nn.LSTM(128, 128, batch_first=True)
        self.head = nn.Conv1d(128, 1, 1)

    def forward(self, waveform: Tensor) -> Detection:
        """Hears waveforms `[B, N]`; the last chunk is filled up with zeros."""
        n_samples = waveform.shape[1]
        n_chunks = -(-n_samples // CHUNK)
        padded = nn.functional.pad(waveform, (CONTEXT, n_chunks * CHUNK - n_samples))
        chunks = padded.unfold(1, CONTEXT + CHUNK, CHUNK).flatten(0, 1)[:, None]
        spectrum = self.stft(nn.functional.pad(chunks, (0, 64), mode="reflect"))
        real, imaginary = spectrum.chunk(2, 1)
        x = (real.square() + imaginary.square() + SMALLEST_POWER).sqrt()
        for convolution in self.convolutions:
            x = torch.relu(convolution(x))
        encoded = x.squeeze(2).unflatten(0, (-1, n_chunks))  # [B, T', 128]
        state, _ = self.lstm(encoded)
        frame = torch.sigmoid(self.head(torch.relu(state).transpose(1, 2))).transpose(1, 2)
        return Detection(frame, frame.amax(1), [encoded, state])


def make() -> SileroVAD:
    """The network with the weights of silero-vad. Raises CheckpointError if the package is missing."""
    path = weights_of("silero_vad", "data", "silero_vad.jit", install="silero-vad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch.jit is to go, but the package has no other file of these
        kept = torch.jit.load(path, map_location="cpu").state_dict()
    listener = SileroVAD()
    listener.load_state_dict(
        {_named(name): value for name, value in kept.items() if name.startswith("_model.")}  # beside one for 8 kHz
    )
    return listener.eval()


def _named(name: str) -> str:
    """The name here of a weight in the package's file."""
    for theirs, ours in {
        "_model.stft.forward_basis_buffer": "stft.weight",
        "_model.encoder.": "convolutions.",
        ".reparam_conv.": ".",
        "_model.decoder.decoder.2.": "head.",
        "_model.decoder.rnn.": "lstm.",
        "ih": "ih_l0",
        "hh": "hh_l0",
    }.items():
        name = name.replace(theirs, ours)
    return name
