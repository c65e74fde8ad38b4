"""From folders on disk to training batches: one LightningDataModule for both training commands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from task_aware.base.errors import DataError
from task_aware.data.batches import BatchSizes, ClipStream, PackedBatch, StepDataset, TrainingBatch
from task_aware.data.corpus import builtin_corpus
from task_aware.data.desed import Split, read_split
from task_aware.data.labels import DESED_CLASSES, LabelEncoder
from task_aware.data.mixing import DynamicMixer
from task_aware.data.recipes import MixingConfig
from task_aware.data.rirs import RirBank
from task_aware.data.soundbank import Soundbank

_log = logging.getLogger(__name__)


class Corpus:
    """A folder in DESED's layout, opened as far as training needs it.

    Args:
        root: the folder.
        rirs: folder of room impulse responses; None takes `root/rirs` where it exists and mixes dry otherwise.
        labels: the classes.
        sample_rate: Hz at which everything is read.

    Raises:
        DataError: the folder is missing.
    """

    def __init__(
        self,
        root: Path,
        rirs: Path | None = None,
        *,
        labels: tuple[str, ...] = DESED_CLASSES,
        sample_rate: int = 16000,
    ) -> None:
        if not root.is_dir():
            raise DataError(f"{root} is not a folder; give one in DESED's layout, with audio/ and metadata/ in it")
        self.root = root
        self.encoder = LabelEncoder(labels)
        self.sample_rate = sample_rate
        if rirs is None and (root / "rirs").is_dir():
            rirs = root / "rirs"
        self.rirs_folder = rirs

    def split(self, name: str) -> Split:
        """One of weak, unlabelled, synthetic, validation, public; an empty one is an error."""
        split = read_split(self.root, name, self.encoder.labels)
        if not split.clips:
            raise DataError(f"{split.metadata} names no clip whose recording is there; the {name} clips are needed")
        if split.missing:
            _log.warning("%d of the recordings that %s names are not there", len(split.missing), split.metadata)
        return split

    def stream(self, name: str, seed: int, seconds: float) -> ClipStream:
        """The clips of a split in an endless order."""
        n_samples = round(seconds * self.sample_rate)
        return ClipStream(self.split(name), seed, sample_rate=self.sample_rate, n_samples=n_samples)

    def mixer(self, config: MixingConfig, *, n_sources: int, seconds: float, seed: int) -> DynamicMixer:
        """Dynamic mixing from the corpus' soundbank and rooms."""
        bank = Soundbank(self.root, self.encoder.labels, sample_rate=self.sample_rate)
        _log.info("%s", bank.describe())
        rooms = None
        if config.reverb:
            if self.rirs_folder is None:
                _log.warning("%s has no rirs/ folder, so mixtures are dry; --rirs DIR gives them rooms", self.root)
                config = replace(config, reverb=False)
            else:
                rooms = RirBank(self.rirs_folder, max_seconds=config.max_rir_seconds, sample_rate=self.sample_rate)
                _log.info("%s", rooms.describe())
        return DynamicMixer(
            bank,
            rooms,
            self.encoder,
            config,
            n_sources=n_sources,
            clip_seconds=seconds,
            sample_rate=self.sample_rate,
            seed=seed,
        )


def open_corpus(
    data: Path | None,
    rirs: Path | None,
    *,
    sample_rate: int,
    labels: tuple[str, ...] = DESED_CLASSES,
    tiny: bool = False,
) -> Corpus:
    """The corpus in `data`, or where that is None the built-in one (`tiny` takes its smallest size)."""
    root = data or builtin_corpus(size="tiny" if tiny else "full")
    return Corpus(root, rirs, labels=labels, sample_rate=sample_rate)


class StepDataModule(LightningDataModule):
    """Feeds a trainer the batches of each step, starting where the trainer stands.

    An epoch is `steps_per_epoch` steps: a data loader is made anew for each, so that a run that resumes at the end of
    an epoch goes on with the very batches it would have seen.

    Args:
        sizes: step -> clips of that step, per process.
        max_steps, steps_per_epoch: length of the run and of an epoch.
        workers: processes that make batches.
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
        """The batches of some steps, outside of any training."""
        return (batch.unpack() for batch in iter(self._dataset(steps.start, steps.stop, rank=0, world_size=1)))

    def on_after_batch_transfer(self, batch: PackedBatch, dataloader_idx: int) -> TrainingBatch:
        """Mixtures are put together where they are used."""
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
