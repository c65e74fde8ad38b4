"""A corpus on disk, opened for training: its splits, soundbank and room impulse responses."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from task_aware.base.errors import DataError
from task_aware.data.classes import classes_of
from task_aware.data.clips import ClipStream
from task_aware.data.desed import Clip, Split, read_split, read_table
from task_aware.data.labels import LabelEncoder
from task_aware.data.mixing import DynamicMixer
from task_aware.data.mixing_config import MixingConfig
from task_aware.data.rirs import RirBank
from task_aware.data.soundbank import Soundbank

_log = logging.getLogger(__name__)


class Corpus:
    """A folder in DESED's layout. Its parts are opened when they are first needed.

    Args:
        root: the folder.
        rirs: folder of room impulse responses; by default `root/rirs`. Without either, mixtures are dry.
        labels: the classes; by default those of the data (`classes_of`).
        sample_rate: sample rate that all recordings are read at, Hz.
        channel: the channel of all recordings to read, counted from 0; None reads the mean.
        others_are_noise: whether other classes than `labels` count as background: their recordings are mixed as such,
            and their events in clips are left out. Otherwise events of other classes are an error.

    Raises:
        DataError: the folder is missing, or has no classes.
    """

    def __init__(
        self,
        root: Path,
        rirs: Path | None = None,
        *,
        labels: Sequence[str] | None = None,
        sample_rate: int = 16000,
        channel: int | None = None,
        others_are_noise: bool = False,
    ) -> None:
        if not root.is_dir():
            raise DataError(f"{root} is not a folder; expected one in DESED's layout, with audio/ and metadata/ in it")
        self.root = root
        self.encoder = LabelEncoder(labels if labels is not None else classes_of(root))
        self.sample_rate = sample_rate
        self.channel = channel
        self.others_are_noise = others_are_noise
        if rirs is None and (root / "rirs").is_dir():
            rirs = root / "rirs"
        self.rirs_folder = rirs

    def split(self, name: str) -> Split:
        """Reads a split: weak, unlabelled, synthetic, validation or public. Raises DataError if it has no clips."""
        read = read_split_of if self.others_are_noise else read_split
        split = read(self.root, name, self.encoder.labels, channel=self.channel)
        if not split.clips:
            raise DataError(f"{split.metadata} names no clip whose recording exists; the {name} clips are needed")
        if split.missing:
            _log.warning("%d of the recordings that %s names are missing", len(split.missing), split.metadata)
        return split

    def stream(self, name: str, seed: int, seconds: float) -> ClipStream:
        """Opens the clips of a split as an endless shuffled stream."""
        n_samples = round(seconds * self.sample_rate)
        return ClipStream(self.split(name), seed, sample_rate=self.sample_rate, n_samples=n_samples)

    def mixer(self, config: MixingConfig, *, n_sources: int, seconds: float, seed: int) -> DynamicMixer:
        """Opens dynamic mixing from the corpus's soundbank and rooms."""
        if config.reference_db is None and (stated := stated_levels(self.root)):
            reference = sum(stated.values()) / len(stated) - sum(config.foreground_db) / 2
            _log.info("mixtures are at the level of the data: events at %.1f dB on average", reference)
            config = replace(config, reference_db=round(reference, 1))
        bank = Soundbank(
            self.root,
            self.encoder.labels,
            sample_rate=self.sample_rate,
            channel=self.channel,
            others_are_noise=self.others_are_noise,
        )
        _log.info("%s", bank.describe())
        rooms = None
        if config.reverb:
            if self.rirs_folder is None:
                _log.warning(
                    "%s has no rirs/ folder, so mixtures have no reverberation; pass room impulse responses with "
                    "--rirs DIR",
                    self.root,
                )
                config = replace(config, reverb=False)
            else:
                rooms = RirBank(
                    self.rirs_folder,
                    max_seconds=config.max_rir_seconds,
                    sample_rate=self.sample_rate,
                    receiver=config.rir_receiver,
                    measurements=config.rir_measurements,
                )
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


def read_split_of(root: Path, name: str, labels: Sequence[str], *, channel: int | None = None) -> Split:
    """As `read_split`, but labels of other classes are left out instead of being an error."""
    split = read_split(root, name, channel=channel)
    return replace(split, clips=tuple(_only(clip, labels) for clip in split.clips))


def _only(clip: Clip, labels: Sequence[str]) -> Clip:
    events = clip.events and tuple(event for event in clip.events if event.label in labels)
    return replace(clip, events=events, labels=clip.labels and tuple(x for x in clip.labels if x in labels))


def stated_levels(root: Path) -> dict[str, float]:
    """The median level of the events of each class, dB relative to full scale, as `metadata/levels.tsv` states them.

    Empty if there is no such table. Raises DataError if one of its levels is no number.
    """
    path = root / "metadata" / "levels.tsv"
    if not path.is_file():
        return {}
    levels = {}
    for line, (label, text) in read_table(path, ("event_label", "median_db")):
        try:
            levels[label] = float(text)
        except ValueError:
            levels[label] = math.nan
        if not math.isfinite(levels[label]):
            raise DataError(f"{path}:{line} has the level {text!r}; give a number of dB, or remove the row")
    return levels
