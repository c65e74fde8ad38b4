"""Dynamic mixing (section 3.2 of the paper): draws mixtures from a soundbank and rooms.

A mixture is first planned as numbers, in a fraction of a millisecond, and then packed as 16-bit samples. Placing the
samples, convolving and summing (`ops.reverb_mix`) happen on the training device:

    image[s] = gains[s] * (sources[s] convolved with rirs[s], cut at N)     mixture = their sum + background
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from task_aware.base.errors import DataError
from task_aware.data.labels import Event, LabelEncoder, listed
from task_aware.data.levels import ActivePart, room_gain
from task_aware.data.mixing_config import BUILTIN_REFERENCE_DB, MixingConfig
from task_aware.data.packing import LOOP_FADE_SECONDS, PackedMixtures, Stretch, loop_period
from task_aware.data.recordings import Recording
from task_aware.data.rirs import RirBank
from task_aware.data.soundbank import Soundbank


class MixturePlan(NamedTuple):
    """The recordings, positions and levels that make up a mixture.

    Row s holds all events of one class, scaled so that the loudest has RMS 1 over its active part and the others keep
    their level relative to it; if classes are doubled (`dupse_rate`), each event has a row. Rows are in the order of
    the labels, followed by the unused ones.

    Attributes:
        sources: the events and their positions in the rows.
        rirs: one impulse response per used row, all of one room; empty without reverberation.
        background: the background at its level; None if the soundbank has none.
        gains: float32 [S], linear; 0 in unused rows. They compensate for the room's effect on the level.
        labels: int64 [S], class index; -1 in unused rows.
        events: the labels, in seconds within the clip, sorted by onset. They span the first to the last active frame
            of the dry event; overlapping events of one class are joined.
    """

    sources: tuple[Stretch, ...]
    rirs: tuple[Stretch, ...]
    background: Stretch | None
    gains: np.ndarray
    labels: np.ndarray
    events: tuple[Event, ...]


class _Part(NamedTuple):
    """A stretch of a recording chosen for a mixture, but not yet placed in it."""

    path: Path
    recording: Recording
    first: int
    length: int
    active: ActivePart
    taken: int | None = None


class DynamicMixer:
    """Draws mixtures from a soundbank; mixture `index` depends only on (seed, index) and the files.

    Args:
        soundbank: events and backgrounds.
        rirs: room impulse responses, cut at `config.max_rir_seconds`; may be None if `config.reverb` is off.
        encoder: the labels, which determine the order of the sources and the label columns.
        config: how mixtures are drawn.
        n_sources: number of rows S, at least the largest number of events in `config`.
        clip_seconds: length of the mixtures, N / sample_rate.
        sample_rate: sample rate of both banks, Hz.
        seed: seed of the whole sequence.

    Raises:
        ValueError: arguments contradict each other.
        DataError: reverberation is on but there are no rooms, or the soundbank has fewer classes than the smallest
            number of distinct ones in `config`.
    """

    def __init__(
        self,
        soundbank: Soundbank,
        rirs: RirBank | None,
        encoder: LabelEncoder,
        config: MixingConfig,
        *,
        n_sources: int,
        clip_seconds: float,
        sample_rate: int = 16000,
        seed: int = 0,
    ) -> None:
        config.validate()
        if config.reference_db is None:
            config = replace(config, reference_db=BUILTIN_REFERENCE_DB)
        if not (math.isfinite(clip_seconds) and clip_seconds >= 0.1):
            raise ValueError(f"clip_seconds must be at least 0.1, got {clip_seconds}.")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}.")
        if config.n_events[1] > n_sources:
            raise ValueError(
                f"mixing.n_events goes up to {config.n_events[1]}, but there are only {n_sources} sources; lower "
                "mixing.n_events or raise the number of sources."
            )
        for bank in (soundbank, rirs):
            if bank is not None and bank.sample_rate != sample_rate:
                raise ValueError(
                    f"{bank.folder} is read at {bank.sample_rate} Hz, but the mixer works at {sample_rate} Hz."
                )
        if config.reverb and rirs is None:
            raise DataError("mixing.reverb is on, but there are no room impulse responses; add some or turn it off.")
        rir_samples = max(1, round(config.max_rir_seconds * sample_rate))
        if config.reverb and rirs is not None and rirs.max_samples != rir_samples:
            raise ValueError(
                f"{rirs.folder} is cut at {rirs.max_samples / sample_rate:g} s, but mixing.max_rir_seconds is "
                f"{config.max_rir_seconds:g}; use the same value for both."
            )
        unknown = [label for label in soundbank.foreground if label not in encoder.labels]
        if unknown:
            raise ValueError(f"The soundbank has the labels {listed(unknown)}, which the encoder does not know.")
        self._fewest, self._most = config.n_events
        if config.distinct_classes and len(soundbank.foreground) < self._most:
            if len(soundbank.foreground) < self._fewest:
                raise DataError(
                    f"{soundbank.folder} has {len(soundbank.foreground)} classes, but mixing.n_events requires at "
                    f"least {self._fewest} distinct ones; lower it or turn mixing.distinct_classes off."
                )
            self._most = len(soundbank.foreground)
            warnings.warn(
                f"{soundbank.folder} has only {self._most} classes, so mixtures have at most {self._most} events "
                f"instead of the {config.n_events[1]} that mixing.n_events allows.",
                stacklevel=2,
            )
        if not soundbank.background:
            warnings.warn(
                f"{soundbank.folder} has no backgrounds, so mixtures have none either; to add some, put recordings "
                f"into {soundbank.folder / 'background'}.",
                stacklevel=2,
            )
        self.config = config
        self.n_sources = n_sources
        self.n_samples = round(clip_seconds * sample_rate)
        self.sample_rate = sample_rate
        self.seed = seed
        self.soundbank = soundbank
        self.rirs = rirs if config.reverb else None
        self._encoder = encoder
        self._recordings = [(label, path) for label, paths in soundbank.foreground.items() for path in paths]
        self._fade = round(LOOP_FADE_SECONDS * sample_rate)

    def plan(self, index: int) -> MixturePlan:
        """Plans mixture number `index`, counted from 0. Raises ValueError if `index` is negative."""
        if index < 0:
            raise ValueError(f"index must be 0 or more, got {index}.")
        generator = np.random.default_rng([self.seed, index])
        config = self.config
        drawn = self._draw_events(generator, int(generator.integers(self._fewest, self._most + 1)))
        levels = generator.uniform(*config.foreground_db, size=max(1, len(drawn)))  # a background refers to one
        assert config.reference_db is not None
        gain_db = config.reference_db + generator.uniform(*config.gain_db)

        rows = self._rows([label for label, _ in drawn])
        gains = np.zeros(self.n_sources, dtype=np.float32)
        labels = np.full(self.n_sources, -1, dtype=np.int64)
        labels[: len(rows)] = [self._encoder.index(drawn[members[0]][0]) for members in rows]
        rirs, responses = self._draw_rirs(generator, len(rows))
        sources: list[Stretch] = []
        spans: dict[str, list[tuple[int, int]]] = {}
        for row, members in enumerate(rows):
            loudest = max(levels[number] for number in members)
            dry = wet = 0.0
            starts = self._place(generator, [drawn[number][1].length for number in members])
            for number, start in zip(members, starts, strict=True):
                part = drawn[number][1]
                scale = _linear(levels[number] - loudest) / part.active.rms
                sources.append(_stretch(part, row, start, scale))
                spans.setdefault(drawn[number][0], []).append((start + part.active.first, start + part.active.last))
                energy = scale**2 * part.active.energy
                dry += energy
                wet += energy * (room_gain(part.recording.power(), responses[row]) ** 2 if responses else 1.0)
            gains[row] = _linear(gain_db + loudest) * math.sqrt(dry / wet)
        events = [
            Event(first / self.sample_rate, last / self.sample_rate, label)
            for label, of_label in spans.items()
            for first, last in _join(of_label)
        ]
        return MixturePlan(
            sources=tuple(sources),
            rirs=tuple(rirs),
            background=self._draw_background(generator, levels, gain_db),
            gains=gains,
            labels=labels,
            events=tuple(sorted(events, key=lambda event: (event.onset, self._encoder.index(event.label)))),
        )

    def pack(self, plans: Sequence[MixturePlan]) -> PackedMixtures:
        """Packs the planned mixtures together with their samples."""
        S = self.n_sources
        sources = [at._replace(row=b * S + at.row) for b, plan in enumerate(plans) for at in plan.sources]
        rirs = [at._replace(row=b * S + at.row) for b, plan in enumerate(plans) for at in plan.rirs]
        backgrounds = [plan.background._replace(row=b) for b, plan in enumerate(plans) if plan.background is not None]
        samples = [at.read(self.soundbank.read(at.path).samples) for at in sources]
        if self.rirs is not None:
            samples += [self.rirs.read(at.path).samples for at in rirs]
        samples += [at.read(self.soundbank.read(at.path).samples) for at in backgrounds]
        return PackedMixtures(
            torch.from_numpy(np.concatenate([np.empty(0, dtype=np.int16), *samples])),
            sources,
            rirs,
            backgrounds,
            torch.from_numpy(np.stack([plan.gains for plan in plans])),
            n_samples=self.n_samples,
            rir_samples=self.rirs.max_samples if self.rirs is not None else 1,
            fade=self._fade,
        )

    def _rows(self, labels: Sequence[str]) -> list[list[int]]:
        """The numbers of the events in each row, by their labels."""
        ordered = sorted(range(len(labels)), key=lambda number: self._encoder.index(labels[number]))
        if self.config.dupse_rate:
            return [[number] for number in ordered]
        return [list(group) for _, group in groupby(ordered, key=lambda number: labels[number])]

    def _draw_events(self, generator: np.random.Generator, count: int) -> list[tuple[str, _Part]]:
        if self.config.distinct_classes:
            labels = list(self.soundbank.foreground)
            chosen = [labels[choice] for choice in generator.permutation(len(labels))[:count]]
            if self.config.dupse_rate and count > 1 and generator.random() < self.config.dupse_rate:
                return self._draw_double(generator, chosen)
            return [(label, self._draw_event(generator, self.soundbank.foreground[label])) for label in chosen]
        # a recording occurs only once in a mixture, unless there are fewer recordings than events
        available = len(self._recordings)
        numbers = generator.choice(available, size=min(count, available), replace=False)
        recordings = [self._recordings[number] for number in np.resize(numbers, count)]
        return [(label, self._draw_event(generator, [path])) for label, path in recordings]

    def _draw_double(self, generator: np.random.Generator, chosen: Sequence[str]) -> list[tuple[str, _Part]]:
        """Events of these classes, but that the last one is of another's class, if that has two recordings."""
        bank = self.soundbank.foreground
        drawn = [(label, self._draw_event(generator, bank[label])) for label in chosen[:-1]]
        several = [(label, part.path) for label, part in drawn if len(bank[label]) > 1]
        if not several:
            return [*drawn, (chosen[-1], self._draw_event(generator, bank[chosen[-1]]))]
        label, used = several[int(generator.integers(len(several)))]
        return [*drawn, (label, self._draw_event(generator, [path for path in bank[label] if path != used]))]

    def _draw_event(self, generator: np.random.Generator, paths: Sequence[Path]) -> _Part:
        """Draws one of `paths`, or a stretch of it, and its speed, as the options say."""
        config, longest, speed = self.config, self.n_samples, 1.0
        if config.event_seconds is not None:
            longest = min(longest, round(generator.uniform(*config.event_seconds) * self.sample_rate))
        if config.speed != (1.0, 1.0):
            low, high = config.speed
            speed = math.exp(generator.uniform(math.log(low), math.log(high)))
        return self._draw_part(generator, paths, longest, speed)

    def _draw_part(
        self, generator: np.random.Generator, paths: Sequence[Path], longest: int | None = None, speed: float = 1.0
    ) -> _Part:
        """Draws one of `paths`, or a stretch of it of `longest` samples when played at `speed`."""
        longest = longest or self.n_samples
        path = paths[int(generator.integers(len(paths)))]
        recording = self.soundbank.read(path)
        first, taken = 0, recording.frames.n_samples
        if taken > (most := max(1, round(longest * speed))):
            first, taken = recording.frames.random_start(most, generator), most
        active = recording.frames.active_part(first, taken)
        if speed == 1.0:
            return _Part(path, recording, first, taken, active)
        length = min(max(1, round(taken / speed)), longest)
        slower = length / taken
        onset, offset = (min(round(at * slower), length) for at in (active.first, active.last))
        active = ActivePart(onset, offset, active.rms, active.energy * slower)
        return _Part(path, recording, first, length, active, taken)

    def _place(self, generator: np.random.Generator, lengths: Sequence[int]) -> list[int]:
        """Draws starts for the events of one class: uniform, and without overlap if the events fit side by side."""
        free = self.n_samples - sum(lengths)
        if free < 0:
            return [int(generator.integers(self.n_samples - length + 1)) for length in lengths]
        gaps = np.sort(generator.integers(free + 1, size=len(lengths)))
        starts = [0] * len(lengths)
        before = 0
        for gap, number in zip(gaps, generator.permutation(len(lengths)), strict=True):
            starts[number] = int(gap) + before
            before += lengths[number]
        return starts

    def _draw_rirs(self, generator: np.random.Generator, count: int) -> tuple[list[Stretch], list[np.ndarray]]:
        """Draws responses of one room, with their power spectra; different for each row if the room has enough."""
        if self.rirs is None:
            return [], []
        paths = self.rirs.rooms[int(generator.integers(len(self.rirs.rooms)))]
        choices = generator.choice(len(paths), size=min(count, len(paths)), replace=False)
        stretches, spectra = [], []
        for row in range(count):
            path = paths[choices[row % len(choices)]]
            recording = self.rirs.read(path)
            scale = recording.scale / math.sqrt(recording.frames.energies.sum(dtype=np.float64))
            stretches.append(Stretch(path, 0, len(recording.samples), row, 0, scale))
            spectra.append(recording.power())
        return stretches, spectra

    def _draw_background(self, generator: np.random.Generator, levels: np.ndarray, gain_db: float) -> Stretch | None:
        low, high = self.config.background_db
        if self.config.background_reference == "loudest":
            level = levels.max() + generator.uniform(low, high)
        else:
            level = generator.uniform(low, levels.min() + high)
        if not self.soundbank.background:
            return None
        part = self._draw_part(generator, self.soundbank.background)
        start, rms = 0, part.active.rms
        if part.length < self.n_samples:
            period = loop_period(part.length, self._fade)
            start = int(generator.integers(period))
            rms = part.recording.frames.looped_rms(start, period, self.n_samples)
        return _stretch(part, 0, start, _linear(level + gain_db) / rms)


def _stretch(part: _Part, row: int, start: int, scale: float) -> Stretch:
    return Stretch(part.path, part.first, part.length, row, start, scale * part.recording.scale, part.taken)


def _linear(level_db: float) -> float:
    return 10.0 ** (level_db / 20.0)


def _join(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Overlapping or touching spans as one, in order."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined
