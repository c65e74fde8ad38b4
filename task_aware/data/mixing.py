"""Dynamic mixing: dry sources, room impulse responses, levels and labels of mixtures drawn from a soundbank.

The paper's section 3.2. What is drawn here is cheap; the convolution and the sum (`ops.reverb_mix`) run where
the training runs:

    image[s] = gains[s] * (sources[s] convolved with rirs[s], cut at N)     mixture = their sum + background
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from task_aware.data.audio import RecordingError
from task_aware.data.labels import Event, LabelEncoder
from task_aware.data.levels import ActivePart, active_part, loop, random_stretch, room_gain
from task_aware.data.recipes import MixingConfig
from task_aware.data.rirs import RirBank
from task_aware.data.soundbank import Soundbank
from task_aware.errors import DataError


@dataclass
class DryMixture:
    """What `ops.reverb_mix` needs for one mixture, and its labels.

    Row s holds all events of one class, placed in the clip and balanced among each other so that the loudest
    has RMS 1 over its active part; rows are in the order of the labels, the unused ones at the end.

    Attributes:
        sources: float32 [S, N]; unused rows are zero.
        rirs: float32 [S, L], of one room, unit energy; a unit impulse (L = 1) without reverberation and,
            padded with zeros, in unused rows.
        gains: float32 [S], linear; 0 in unused rows. They make up for what the room does to the level.
        background: float32 [N], at its level; zero if the soundbank has none.
        labels: int64 [S], column of the class; -1 in unused rows.
        events: in seconds within the clip, by onset. First to last active frame of the dry event as placed;
            events of one class that overlap are joined into one.
    """

    sources: np.ndarray
    rirs: np.ndarray
    gains: np.ndarray
    background: np.ndarray
    labels: np.ndarray
    events: tuple[Event, ...]


class DynamicMixer:
    """Draws mixtures from a soundbank; mixture `index` depends on (seed, index) and the files alone.

    A file that turns out to be broken is listed by its bank, and another one is drawn in its place.

    Args:
        soundbank: events and backgrounds.
        rirs: rooms; may be None if `config.reverb` is off.
        encoder: the labels, which give the order of sources and the columns.
        config: the recipe.
        n_sources: S, at least the most events of the recipe.
        clip_seconds: N / sample_rate.
        sample_rate: of both banks.
        seed: of the whole sequence.

    Raises:
        ValueError: arguments that contradict each other.
        DataError: reverberation without rooms, or fewer classes in the bank than the fewest distinct ones
            wanted.
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
        if not (math.isfinite(clip_seconds) and clip_seconds >= 0.1):
            raise ValueError(f"clip_seconds must be at least 0.1, got {clip_seconds}.")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}.")
        if config.n_events[1] > n_sources:
            raise ValueError(
                f"mixing.n_events goes up to {config.n_events[1]} and there are {n_sources} sources; lower "
                "the one or raise the other."
            )
        for bank in (soundbank, rirs):
            if bank is not None and bank.sample_rate != sample_rate:
                raise ValueError(f"{bank.folder} is read at {bank.sample_rate} Hz and the mixer at {sample_rate} Hz.")
        if config.reverb and rirs is None:
            raise DataError("mixing.reverb is on and there are no room impulse responses; give some or turn it off.")
        unknown = [label for label in soundbank.foreground if label not in encoder.labels]
        if unknown:
            raise ValueError(f"The soundbank has {', '.join(unknown)}, which the encoder does not know.")
        self._fewest, self._most = config.n_events
        if config.distinct_classes and len(soundbank.foreground) < self._most:
            if len(soundbank.foreground) < self._fewest:
                raise DataError(
                    f"{soundbank.folder} has {len(soundbank.foreground)} classes and mixing.n_events wants "
                    f"at least {self._fewest} distinct ones; lower it or turn mixing.distinct_classes off."
                )
            self._most = len(soundbank.foreground)
            warnings.warn(
                f"{soundbank.folder} has {self._most} classes, so mixtures have at most that many of the "
                f"{config.n_events[1]} distinct ones that mixing.n_events allows.",
                stacklevel=2,
            )
        if not soundbank.background:
            warnings.warn(
                f"{soundbank.folder} has no backgrounds, so mixtures have none; put recordings into "
                f"{soundbank.folder / 'background'}.",
                stacklevel=2,
            )
        self.config = config
        self.n_sources = n_sources
        self.n_samples = round(clip_seconds * sample_rate)
        self.sample_rate = sample_rate
        self.seed = seed
        self._bank = soundbank
        self._rirs = rirs if config.reverb else None
        self._encoder = encoder
        self._label_of = {path: label for label, paths in soundbank.foreground.items() for path in paths}
        self._rir_samples = 1
        if self._rirs is not None:
            self._rir_samples = min(max(1, round(config.max_rir_seconds * sample_rate)), self._rirs.max_samples)

    def mixture(self, index: int) -> DryMixture:
        """Mixture number `index`, from 0.

        Raises:
            ValueError: a negative index.
            DataError: no usable recording is left, or too many are unusable.
        """
        if index < 0:
            raise ValueError(f"index must be 0 or more, got {index}.")
        generator = np.random.default_rng([self.seed, index])
        config = self.config
        drawn = self._draw_events(generator, int(generator.integers(self._fewest, self._most + 1)))
        levels = generator.uniform(*config.foreground_db, size=len(drawn))
        gain_db = config.reference_db + generator.uniform(*config.gain_db)

        sources = np.zeros((self.n_sources, self.n_samples), dtype=np.float32)
        gains = np.zeros(self.n_sources, dtype=np.float32)
        labels = np.full(self.n_sources, -1, dtype=np.int64)
        events: list[Event] = []
        present = sorted({label for label, _ in drawn}, key=self._encoder.index)
        rirs = self._draw_rirs(generator, len(present))
        for row, label in enumerate(present):
            members = [number for number, (name, _) in enumerate(drawn) if name == label]
            loudest = max(levels[number] for number in members)
            spans = []
            lengths = [len(drawn[number][1].samples) for number in members]
            starts = self._place(generator, lengths)
            for number, start in zip(members, starts, strict=True):
                part = drawn[number][1]
                scale = np.float32(_linear(levels[number] - loudest) / part.rms)
                sources[row, start : start + len(part.samples)] += scale * part.samples
                spans.append((start + part.first, start + part.last))
            labels[row] = self._encoder.index(label)
            gains[row] = _linear(gain_db + loudest)
            if self._rirs is not None:
                sounding = sources[row, min(starts) : max(map(sum, zip(starts, lengths, strict=True)))]
                gains[row] /= room_gain(sounding, rirs[row])
            events += [Event(first / self.sample_rate, last / self.sample_rate, label) for first, last in _join(spans)]
        return DryMixture(
            sources=sources,
            rirs=rirs,
            gains=gains,
            background=self._draw_background(generator, levels, gain_db),
            labels=labels,
            events=tuple(sorted(events, key=lambda event: (event.onset, self._encoder.index(event.label)))),
        )

    def _draw_events(self, generator: np.random.Generator, count: int) -> list[tuple[str, ActivePart]]:
        drawn: list[tuple[str, ActivePart]] = []
        if self.config.distinct_classes:
            labels = list(self._bank.foreground)
            for choice in generator.permutation(len(labels)):
                part = self._draw_part(generator, list(self._bank.foreground[labels[choice]]))
                if part is not None:
                    drawn.append((labels[choice], part[1]))
                if len(drawn) == count:
                    return drawn
        else:
            # a recording comes once in a mixture, unless there are fewer than events
            left: list[Path] = []
            for _ in range(count):
                left = left or list(self._label_of)
                found = self._draw_part(generator, left)
                if found is not None:
                    drawn.append((self._label_of[found[0]], found[1]))
        if len(drawn) < self._fewest:
            raise DataError(
                f"Only {len(drawn)} of the {count} events of a mixture could be drawn from "
                f"{self._bank.folder}; replace the recordings that were reported as unusable."
            )
        return drawn

    def _draw_part(self, generator: np.random.Generator, paths: list[Path]) -> tuple[Path, ActivePart] | None:
        """A usable one of `paths`, of which those drawn are taken out; None if there is none."""
        while paths:
            path = paths.pop(int(generator.integers(len(paths))))
            try:
                samples = self._bank.read(path)
            except RecordingError:
                continue  # listed by the bank
            return path, random_stretch(samples, self.n_samples, self.sample_rate, generator)
        return None

    def _place(self, generator: np.random.Generator, lengths: Sequence[int]) -> list[int]:
        """Starts of the events of one class: uniform, and without overlap where they fit side by side."""
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

    def _draw_rirs(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """[S, L] of one room: different responses for different sources as far as the room has them."""
        responses = np.zeros((self.n_sources, self._rir_samples), dtype=np.float32)
        responses[:, 0] = 1.0
        if self._rirs is None:
            return responses
        for room in generator.permutation(len(self._rirs.rooms)):
            paths = self._rirs.rooms[room]
            usable: list[np.ndarray] = []
            for choice in generator.permutation(len(paths)):
                try:
                    usable.append(self._rirs.read(paths[choice], self._rir_samples))
                except RecordingError:
                    continue  # listed by the bank
                if len(usable) == count:
                    break
            for row in range(count if usable else 0):
                response = usable[row % len(usable)]
                responses[row] = 0.0
                responses[row, : len(response)] = response
            if usable:
                return responses
        raise DataError(f"{self._rirs.folder} has no usable room impulse response; replace those that were reported.")

    def _draw_background(self, generator: np.random.Generator, levels: np.ndarray, gain_db: float) -> np.ndarray:
        low, high = self.config.background_db
        if self.config.background_reference == "loudest":
            level = levels.max() + generator.uniform(low, high)
        else:
            level = generator.uniform(low, levels.min() + high)
        paths = list(self._bank.background)
        found = self._draw_part(generator, paths) if paths else None
        if found is None:
            return np.zeros(self.n_samples, dtype=np.float32)
        part = found[1]
        if len(part.samples) < self.n_samples:
            looped = loop(part.samples, self.n_samples, self.sample_rate, generator)
            part = active_part(looped, self.sample_rate)
        return part.samples * np.float32(_linear(level + gain_db) / part.rms)


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
