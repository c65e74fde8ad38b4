"""Mixtures packed for transfer to the training device: 16-bit samples and where to place them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
import torch
from torch import Tensor

LOOP_FADE_SECONDS = 0.05


class Stretch(NamedTuple):
    """A stretch of a recording and its destination: `row[start : start + length] += scale * samples`.

    Attributes:
        path: the recording, relative to its bank's folder.
        first: first sample of the stretch in the recording.
        length: number of samples placed.
        row: index of the destination row.
        start: sample of the row at which the stretch begins.
        scale: linear factor for the samples as stored.
        taken: number of the recording's samples that are resampled to `length`, which changes speed and pitch; None
            takes them as they are.
    """

    path: Path
    first: int
    length: int
    row: int
    start: int
    scale: float
    taken: int | None = None

    def read(self, samples: np.ndarray) -> np.ndarray:
        """The samples to place, int16 `[length]`, from those of the recording."""
        if self.taken is None:
            return samples[self.first : self.first + self.length]
        taken = samples[self.first : self.first + self.taken].astype(np.float32)
        played = soxr.resample(taken, self.taken, self.length)
        return np.rint(played).clip(-32768, 32767).astype(np.int16)


class DryMixtures(NamedTuple):
    """The arguments of `ops.reverb_mix`.

    Attributes:
        sources: dry sources, one row per class, `[B, S, N]`.
        rirs: room impulse responses of unit energy, `[B, S, L]`; unit impulses (L = 1) without reverberation.
        gains: linear gains, `[B, S]`; 0 for unused rows.
        background: `[B, N]`.
    """

    sources: Tensor
    rirs: Tensor
    gains: Tensor
    background: Tensor


@dataclass
class PackedMixtures:
    """B mixtures in compact form, to be copied to a device and unpacked there.

    Attributes:
        samples: the samples of all stretches, concatenated in the order `sources`, `rirs`, `backgrounds`: int16 or
            float32, `[P]`.
        sources, rirs: stretches whose `row` is `b * S + s`.
        backgrounds: stretches whose `row` is `b`; one shorter than the clip is looped, beginning at its sample `start`.
        gains: `[B, S]`.
        n_samples, rir_samples: N and L.
        fade: length of the crossfade in looped backgrounds, samples.
    """

    samples: Tensor
    sources: Sequence[Stretch]
    rirs: Sequence[Stretch]
    backgrounds: Sequence[Stretch]
    gains: Tensor
    n_samples: int
    rir_samples: int = 1
    fade: int = 0

    def to(self, device: torch.device | str) -> PackedMixtures:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> PackedMixtures:
        """Pins the tensors' memory; a DataLoader with `pin_memory` calls this."""
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> PackedMixtures:
        return replace(self, samples=function(self.samples), gains=function(self.gains))

    def unpack(self) -> DryMixtures:
        """Places the stretches in rows, on the device that holds the samples.

        The result of a mixture does not depend on the others in the batch.
        """
        B, S = self.gains.shape
        sources, rirs, background = (
            self.gains.new_zeros(rows, length)
            for rows, length in ((B * S, self.n_samples), (B * S, self.rir_samples), (B, self.n_samples))
        )
        stretches = [*self.sources, *self.rirs, *self.backgrounds]
        samples = iter(self.samples.split([stretch.length for stretch in stretches]))
        for rows, placed in ((sources, self.sources), (rirs, self.rirs)):
            for at, part in zip(placed, samples, strict=False):
                rows[at.row, at.start : at.start + at.length].add_(part, alpha=at.scale)
        for at, part in zip(self.backgrounds, samples, strict=True):
            if at.length < self.n_samples:
                part = loop(part.float(), at.start, self.n_samples, self.fade)
            background[at.row].add_(part, alpha=at.scale)
        if not self.rirs:
            rirs[:, 0] = 1.0
        return DryMixtures(sources.view(B, S, -1), rirs.view(B, S, -1), self.gains, background)


def loop_period(length: int, fade: int) -> int:
    """Period of a looped recording, samples; the crossfade takes at most half of the recording."""
    return length - min(fade, length // 2)


def loop(samples: Tensor, start: int, n_samples: int, fade: int) -> Tensor:
    """Loops a recording `[N]` to `n_samples`, beginning at `start`, with equal-power crossfades."""
    period = loop_period(len(samples), fade)
    fade = len(samples) - period
    unit = samples[:period].clone()
    phase = (torch.arange(fade, device=samples.device) + 0.5) * (0.5 * np.pi / max(fade, 1))
    unit[:fade] = phase.sin() * samples[:fade] + phase.cos() * samples[period:]
    return unit.roll(-start).repeat(-(-n_samples // period))[:n_samples]
