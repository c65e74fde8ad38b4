"""Training batches: each is a function of (seed, step, rank) alone, so that a resumed run sees what it would have."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from task_aware.base.errors import DataError
from task_aware.data.audio import read_audio
from task_aware.data.desed import Clip, Split
from task_aware.data.labels import LabelEncoder
from task_aware.data.mixing import DynamicMixer
from task_aware.data.packing import PackedMixtures, Stretch

_log = logging.getLogger(__name__)

#: Mixtures that one rank may draw in one step; keeps the indices of steps and ranks apart.
_MIXTURES_PER_STEP = 4096


class StrongBatch(NamedTuple):
    """Dry sources and what makes mixtures of them: the arguments of `ops.reverb_mix`, and frame labels.

    Attributes:
        sources, rirs, gains, background: as in `DryMixtures`.
        labels: column of each source's class, -1 for an unused row or where it is unknown, `[B, S]`.
        frames: multi-hot labels of the detector's output frames, `[B, T', C]`.
    """

    sources: Tensor
    rirs: Tensor
    gains: Tensor
    background: Tensor
    labels: Tensor
    frames: Tensor


class RealBatch(NamedTuple):
    """Real clips: waveforms `[B, N]` and multi-hot clip labels `[B, C]` (of unlabelled clips all zero)."""

    waveform: Tensor
    labels: Tensor


class TrainingBatch(NamedTuple):
    """What one step trains on; a part that the step does not use is None."""

    strong: StrongBatch | None
    weak: RealBatch | None
    unlabelled: RealBatch | None


class PackedBatch(NamedTuple):
    """A `TrainingBatch` as it travels to the training device; `labels` and `frames` are those of its `StrongBatch`."""

    mixtures: PackedMixtures | None
    labels: Tensor | None
    frames: Tensor | None
    weak: RealBatch | None
    unlabelled: RealBatch | None

    def unpack(self) -> TrainingBatch:
        """On the device where the tensors are."""
        strong = None
        if self.mixtures is not None and self.labels is not None and self.frames is not None:
            strong = StrongBatch(*self.mixtures.unpack(), self.labels, self.frames)
        return TrainingBatch(strong, self.weak, self.unlabelled)


class BatchSizes(NamedTuple):
    """Clips per step and process."""

    strong: int
    weak: int
    unlabelled: int


def fit_length(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    """Cuts or zero-pads `[N]` to `n_samples`."""
    return np.pad(waveform[:n_samples], (0, max(0, n_samples - len(waveform))))


class ClipStream:
    """The clips of a split in an endless order that (seed, position) determine: one shuffle per pass.

    A broken recording is named once and the next clip taken in its place; once more than `max_broken` of the split
    are broken, `DataError`.
    """

    def __init__(self, split: Split, seed: int, *, sample_rate: int, n_samples: int, max_broken: float = 0.1) -> None:
        if not split.clips:
            raise DataError(f"{split.metadata} names no clip whose recording is there; training needs at least one")
        self.split = split
        self.seed = seed
        self.sample_rate = sample_rate
        self.n_samples = n_samples
        self.max_broken = max_broken
        self.broken: dict[str, str] = {}

    def read(self, position: int) -> tuple[Clip, np.ndarray]:
        """The clip at `position` of the endless order and its waveform `[n_samples]`."""
        n_clips = len(self.split.clips)
        while True:
            turn, place = divmod(position, n_clips)
            clip = self.split.clips[np.random.default_rng([self.seed, turn]).permutation(n_clips)[place]]
            if str(clip.path) not in self.broken:
                try:
                    return clip, fit_length(read_audio(clip.path, self.sample_rate), self.n_samples)
                except DataError as error:
                    self._reject(clip, error)
            position += 1

    def _reject(self, clip: Clip, error: DataError) -> None:
        self.broken[str(clip.path)] = str(error)
        _log.warning("left out of training: %s", error)
        if len(self.broken) > self.max_broken * len(self.split.clips):
            raise DataError(
                f"{len(self.broken)} of the {len(self.split.clips)} clips in {self.split.metadata} are broken, more "
                f"than the {self.max_broken:.0%} that training leaves out; the last one: {error}"
            ) from error


class StepDataset(Dataset[PackedBatch]):
    """Item i is the whole batch of step `first_step + i` on this rank.

    Args:
        sizes: step -> clips of that step.
        mixer, strong_clips: the source of strong clips; give one. Clips are fixed soundscapes instead of mixtures.
        weak, unlabelled: None where no step wants them.
        encoder: classes C.
        output_frames: samples -> (T', seconds per frame) of the detector.
    """

    def __init__(
        self,
        *,
        first_step: int,
        last_step: int,
        sizes: Callable[[int], BatchSizes],
        encoder: LabelEncoder,
        output_frames: Callable[[int], tuple[int, float]],
        mixer: DynamicMixer | None = None,
        strong_clips: ClipStream | None = None,
        weak: ClipStream | None = None,
        unlabelled: ClipStream | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.first_step = first_step
        self.last_step = last_step
        self.sizes = sizes
        self.encoder = encoder
        self.output_frames = output_frames
        self.mixer = mixer
        self.strong_clips = strong_clips
        self.weak = weak
        self.unlabelled = unlabelled
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return max(0, self.last_step - self.first_step)

    def __getitem__(self, index: int) -> PackedBatch:
        if not 0 <= index < len(self):
            raise IndexError(f"step {self.first_step + index} is not one of {self.first_step}..{self.last_step - 1}")
        step = self.first_step + index
        sizes = self.sizes(step)
        slot = step * self.world_size + self.rank
        mixtures, labels, frames = self._strong(slot, sizes.strong)
        return PackedBatch(
            mixtures,
            labels,
            frames,
            self._real(self.weak, slot, sizes.weak),
            self._real(self.unlabelled, slot, sizes.unlabelled),
        )

    def _strong(self, slot: int, size: int) -> tuple[PackedMixtures | None, Tensor | None, Tensor | None]:
        """Mixtures, or fixed soundscapes as such, with their labels and frames."""
        if size and self.mixer:
            plans = [self.mixer.plan(slot * _MIXTURES_PER_STEP + k) for k in range(size)]
            packed = self.mixer.pack(plans)
            labels = np.stack([plan.labels for plan in plans])
            events = [plan.events for plan in plans]
        elif size and self.strong_clips:
            clips = [self.strong_clips.read(slot * size + k) for k in range(size)]
            whole = [Stretch(clip.path, 0, len(samples), b, 0, 1.0) for b, (clip, samples) in enumerate(clips)]
            samples = torch.from_numpy(np.concatenate([samples for _, samples in clips]))
            packed = PackedMixtures(samples, whole, (), (), torch.ones(size, 1), n_samples=self.strong_clips.n_samples)
            labels = np.full((size, 1), -1)
            events = [clip.events or () for clip, _ in clips]
        else:
            return None, None, None
        output_frames = self.output_frames(packed.n_samples)
        frames = np.stack([self.encoder.strong(of_clip, *output_frames) for of_clip in events])
        return packed, torch.from_numpy(labels), torch.from_numpy(frames)

    def _real(self, stream: ClipStream | None, slot: int, size: int) -> RealBatch | None:
        if not size or stream is None:
            return None
        clips = [stream.read(slot * size + k) for k in range(size)]
        labels = np.stack([self.encoder.weak(clip.labels or ()) for clip, _ in clips])
        return RealBatch(torch.from_numpy(np.stack([samples for _, samples in clips])), torch.from_numpy(labels))
