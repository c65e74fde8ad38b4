"""Training batches. Each depends on (seed, step, rank) alone, so that a resumed run sees the same batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from task_aware.data.clips import ClipStream
from task_aware.data.labels import LabelEncoder
from task_aware.data.mixing import DynamicMixer
from task_aware.data.packing import PackedMixtures, Stretch

#: Most mixtures that one rank may draw in a step; keeps the mixture indices of steps and ranks distinct.
_MIXTURES_PER_STEP = 4096


class StrongBatch(NamedTuple):
    """Strongly labelled mixtures, not yet mixed: the arguments of `ops.reverb_mix`, and the labels.

    Attributes:
        sources, rirs, gains, background: as in `DryMixtures`.
        labels: class index of each source, `[B, S]`; -1 for an unused row or an unknown class.
        frames: multi-hot labels of the detector's output frames, `[B, T', C]`.
    """

    sources: Tensor
    rirs: Tensor
    gains: Tensor
    background: Tensor
    labels: Tensor
    frames: Tensor


class RealBatch(NamedTuple):
    """Real clips: waveforms `[B, N]` and multi-hot clip labels `[B, C]` (all zero for unlabelled clips)."""

    waveform: Tensor
    labels: Tensor


class TrainingBatch(NamedTuple):
    """The clips of one training step; the parts that a step does not use are None."""

    strong: StrongBatch | None
    weak: RealBatch | None
    unlabelled: RealBatch | None


class PackedBatch(NamedTuple):
    """A `TrainingBatch` packed for transfer to the training device; `labels` and `frames` are its `StrongBatch`'s."""

    mixtures: PackedMixtures | None
    labels: Tensor | None
    frames: Tensor | None
    weak: RealBatch | None
    unlabelled: RealBatch | None

    def unpack(self) -> TrainingBatch:
        """Builds the `TrainingBatch`, on the device that holds the tensors."""
        strong = None
        if self.mixtures is not None and self.labels is not None and self.frames is not None:
            strong = StrongBatch(*self.mixtures.unpack(), self.labels, self.frames)
        return TrainingBatch(strong, self.weak, self.unlabelled)


class BatchSizes(NamedTuple):
    """Clips per step and process."""

    strong: int
    weak: int
    unlabelled: int


class StepDataset(Dataset[PackedBatch]):
    """A data set whose item i is the whole batch of step `first_step + i` on this rank.

    Args:
        sizes: returns the number of clips of a step.
        mixer, strong_clips: source of the strongly labelled clips, one of the two: mixtures drawn anew for each step,
            or fixed soundscapes.
        weak, unlabelled: sources of the real clips; None if no step uses them.
        encoder: the C classes.
        output_frames: returns the detector's (T', seconds per frame) for a number of samples.
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
            raise IndexError(f"step {self.first_step + index} is not in {self.first_step}..{self.last_step - 1}")
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
        """Mixtures (or fixed soundscapes, packed as mixtures of one source) with their labels and frames."""
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


class StepDataModule(LightningDataModule):
    """Feeds a trainer the batch of each step, beginning at the trainer's current step.

    An epoch is `steps_per_epoch` steps. Each epoch has a data loader of its own, so that a run resumed at the end of
    an epoch continues with exactly the batches that it would have seen.

    Args:
        sizes: returns the number of clips of a step, per process.
        max_steps, steps_per_epoch: length of the run and of an epoch.
        workers: number of processes that prepare batches.
        streams: the keyword arguments of `StepDataset` that name the sources of clips.
    """

    def __init__(
        self,
        *,
        sizes: Callable[[int], BatchSizes],
        max_steps: int,
        steps_per_epoch: int,
        workers: int = 0,
        **streams: object,
    ) -> None:
        super().__init__()
        self.sizes = sizes
        self.max_steps = max_steps
        self.steps_per_epoch = steps_per_epoch
        self.workers = workers
        self.streams = streams

    def batches(self, steps: range) -> Iterator[TrainingBatch]:
        """Yields the batches of the given steps, outside of a training run."""
        return (batch.unpack() for batch in iter(self._dataset(steps.start, steps.stop, rank=0, world_size=1)))

    def on_after_batch_transfer(self, batch: PackedBatch, dataloader_idx: int) -> TrainingBatch:
        """Assembles the mixtures on the training device."""
        return batch.unpack()

    def train_dataloader(self) -> DataLoader[PackedBatch]:
        assert self.trainer is not None
        first = self.trainer.global_step
        last = min(first + self.steps_per_epoch, self.max_steps)
        dataset = self._dataset(first, last, rank=self.trainer.global_rank, world_size=self.trainer.world_size)
        pin = self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(dataset, batch_size=None, num_workers=self.workers, pin_memory=pin)

    def _dataset(self, first: int, last: int, **ranks: int) -> StepDataset:
        return StepDataset(first_step=first, last_step=last, sizes=self.sizes, **ranks, **self.streams)  # type: ignore[arg-type]
