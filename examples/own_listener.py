"""A listener of your own: a network made for streams at 8 kHz, adapted so that a separator is trained through it.

PYTHONPATH=examples python -m task_aware.train --config speech --detector own_listener:make

`StreamNetwork` stands for what you found: it takes one chunk at a time, remembers, and allows no gradient. `Adapted`
uses its layers, with the same weights.
"""

import numpy as np
import torch
from torch import Tensor, nn

from task_aware.models.detector import Detection

RATE, CHUNK = 8000, 256


class StreamNetwork(nn.Module):
    """Somebody's network: speech or not, for each chunk of 32 ms."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(CHUNK // 2 + 1, 32)
        self.recurrent = nn.GRUCell(32, 32)
        self.head = nn.Linear(32, 1)
        self.state = torch.zeros(1, 32)

    @torch.no_grad()
    def process(self, chunk: np.ndarray) -> float:
        """Hears one chunk `[256]`, after those before it."""
        magnitude = np.abs(np.fft.rfft(chunk * np.hanning(CHUNK)))
        spectrum = torch.from_numpy(np.log(magnitude + 1e-5)).float()[None]
        self.state = self.recurrent(torch.relu(self.encoder(spectrum)), self.state)
        return torch.sigmoid(self.head(self.state)).item()


class Adapted(nn.Module):
    """The same network as a listener: all chunks of a batch at once, in torch, from a fresh state."""

    labels = ("Speech",)  # as your data name it
    sample_rate = RATE
    frame_seconds = CHUNK / RATE

    def __init__(self, network: StreamNetwork) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("window", torch.from_numpy(np.hanning(CHUNK)).float(), persistent=False)

    def forward(self, waveform: Tensor) -> Detection:
        """Hears waveforms `[B, N]` of any length."""
        padded = nn.functional.pad(waveform, (0, -waveform.shape[1] % CHUNK))
        bins = torch.fft.rfft(padded.unfold(1, CHUNK, CHUNK) * self.window)  # [B, T', 129]
        magnitude = (bins.real.square() + bins.imag.square() + 1e-20).sqrt()  # abs() has no gradient in silence
        encoded = torch.relu(self.network.encoder(torch.log(magnitude + 1e-5)))
        state = encoded.new_zeros(len(encoded), 32)
        states = []
        for chunk in encoded.unbind(1):
            state = self.network.recurrent(chunk, state)
            states.append(state)
        remembered = torch.stack(states, 1)  # [B, T', 32]
        frame = torch.sigmoid(self.network.head(remembered))
        return Detection(frame, frame.amax(1), [encoded, remembered])


def make() -> Adapted:
    """What `--detector` names. Load your weights here."""
    torch.manual_seed(0)
    return Adapted(StreamNetwork())
