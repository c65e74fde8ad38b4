"""Writes the recordings of a data set: a link to the original where that will do, otherwise a cut of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from task_aware.base.errors import RecordingError
from task_aware.data.audio import audio_header, read_audio, write_audio
from task_aware.data.finding import AUDIO_SUFFIXES
from task_aware.data.labels import Event, join_labels, safe_name
from task_aware.data.levels import active_part
from task_aware.data.recordings import SILENT_PEAK
from task_aware.importing.activity import SHORTEST_SECONDS, WORTH_SECONDS, Stretch, active_stretches
from task_aware.importing.items import Item

TRAIN, HELD = "audio/train/soundbank", "audio/heldout"

#: Clips for the detector are at most this long; longer recordings are cut into pieces.
PIECE_SECONDS = 10.0
#: Recordings to score on stay whole up to this length.
WHOLE_SECONDS = 30.0
_LONGEST_STEM = 120


@dataclass
class Written:
    """What became of a recording.

    Attributes:
        events: class, length in seconds and level in dB of each isolated event that was written.
        cuts: rows of `cuts.tsv`: onset, offset, reason, the file in which it can be heard and where.
        weak, strong: rows of `weak.tsv` and `validation.tsv`.
        steady: share of a clip in which it sounds; None if its labels have times.
    """

    seconds: float = 0.0
    events: list[tuple[str, float, float]] = field(default_factory=list)
    cuts: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    weak: list[tuple[str, str]] = field(default_factory=list)
    strong: list[tuple[str, str, str, str]] = field(default_factory=list)
    backgrounds: int = 0
    steady: float | None = None


def file_stems(items: Sequence[Item]) -> list[str]:
    """A unique name for the files of each clip, from its path."""
    used: dict[str, int] = {}
    stems = []
    for item in items:
        stem = safe_name(PurePosixPath(item.name).with_suffix("").as_posix().replace("/", "_")).replace("%", "_")
        raw = os.fsencode(stem)
        if len(raw) > _LONGEST_STEM:
            stem = f"{raw[: _LONGEST_STEM // 2].decode(errors='ignore')}_{hashlib.sha256(raw).hexdigest()[:12]}"
        count = used[stem.lower()] = used.get(stem.lower(), 0) + 1
        stems.append(stem if count == 1 else f"{stem}.{count}")
    return stems


class Writer:
    """Writes one recording at a time below `root`; several threads may do so at once.

    Args:
        root: the data set.
        background: classes that are backgrounds.
        gap: pauses up to this many seconds stay inside an event.
    """

    def __init__(self, root: Path, background: frozenset[str], gap: float) -> None:
        self.root = root
        self.background = background
        self.gap = gap

    def write(self, item: Item, stem: str, held: bool) -> Written:
        """Writes what a clip gives. Raises RecordingError if it cannot be read or is silent."""
        header = audio_header(item.path)
        samples = read_audio(item.path, header.sample_rate)
        if float(np.abs(samples).max()) < SILENT_PEAK:
            raise RecordingError(f"{item.path} is silent; replace or remove it")
        clip = _Clip(item, stem, samples, header.sample_rate, held)
        written = Written(clip.seconds)
        if item.events is None:
            self._of_clip(clip, written)
        else:
            self._of_events(clip, item.events, written)
        return written

    def _of_clip(self, clip: _Clip, written: Written) -> None:
        """A clip with labels but no times: its active stretches are events."""
        labels = [label for label in clip.item.labels if label not in self.background]
        if not labels:
            for label in clip.item.labels[:1]:
                self._put(clip, Stretch(0.0, clip.seconds), self._bank(clip) / "background" / safe_name(label), "")
                written.backgrounds += 1
            return
        stretches = active_stretches(clip.samples, clip.rate, self.gap)
        kept = [stretch for stretch in stretches if not stretch.reason]
        written.steady = sum(offset - onset for onset, offset, _ in kept) / clip.seconds
        if len(labels) == 1:
            self._cut(clip, labels[0], stretches, written)
            for number, stretch in enumerate(kept, 1):
                self._event(clip, labels[0], stretch, number, written)
        elif clip.held:
            written.cuts.append((*_times(0.0, clip.seconds), "several labels and no times: cannot be scored", "", ""))
        if not clip.held:
            begin = max(0.0, min(kept[0].onset, clip.seconds - PIECE_SECONDS))
            piece = Stretch(begin, min(clip.seconds, begin + PIECE_SECONDS))
            name = self._put(clip, piece, self.root / "audio/train/weak", "")
            written.weak.append((name, join_labels(labels)))

    def _of_events(self, clip: _Clip, events: Sequence[Event], written: Written) -> None:
        """A recording whose labels have times, which are kept; events that nothing else overlaps are isolated."""
        inside = [Event(each.onset, min(each.offset, clip.seconds), each.label) for each in events]
        inside = [each for each in inside if each.onset < each.offset]
        scored = [each for each in inside if each.label not in self.background]
        for number, event in enumerate(inside, 1):
            stretch = Stretch(event.onset, event.offset)
            if event.label in self.background:
                folder = self._bank(clip) / "background" / safe_name(event.label)
                self._put(clip, stretch, folder, f"-{number:03d}")
                written.backgrounds += 1
                continue
            others = {each.label for each in inside if each is not event and _overlap(each, event) > 0}
            if others or event.offset - event.onset < SHORTEST_SECONDS:
                reason = f"overlaps with {', '.join(sorted(others))}" if others else "shorter than an event"
                written.cuts.append((*_times(*stretch[:2]), f"not isolated: {reason}", "", ""))
            else:
                self._event(clip, event.label, stretch, number, written)
        longest = WHOLE_SECONDS if clip.held else PIECE_SECONDS
        folder = self.root / ("audio/validation" if clip.held else "audio/train/weak")
        for number, begin in enumerate(_pieces(clip.seconds, longest), 1):
            end = clip.seconds if clip.seconds <= longest else min(clip.seconds, begin + PIECE_SECONDS)
            of_piece = [each for each in scored if each.onset < end and each.offset > begin]
            if not clip.held and not of_piece:
                continue
            name = self._put(clip, Stretch(begin, end), folder, f"-{number:03d}" if clip.seconds > longest else "")
            if not clip.held:
                written.weak.append((name, join_labels(dict.fromkeys(each.label for each in of_piece))))
                continue
            rows = [
                (name, *_times(max(each.onset, begin) - begin, min(each.offset, end) - begin), each.label)
                for each in of_piece
            ]
            written.strong += [row for row in rows if row[1] != row[2]] or [(name, "", "", "")]

    def _event(self, clip: _Clip, label: str, stretch: Stretch, number: int, written: Written) -> None:
        part = clip.part(stretch)
        if not np.any(part):
            written.cuts.append((*_times(*stretch[:2]), "not isolated: digital silence", "", ""))
            return
        folder = self._bank(clip) / "foreground" / safe_name(label)
        self._put(clip, stretch, folder, f"-{number:03d}")
        level = 20 * np.log10(active_part(part, clip.rate).rms)
        written.events.append((label, stretch.offset - stretch.onset, float(level)))

    def _cut(self, clip: _Clip, label: str, stretches: Sequence[Stretch], written: Written) -> None:
        """Writes down what was cut, and puts it one after the other into a file to listen to."""
        cut = [stretch for stretch in stretches if stretch.reason]
        sound = [clip.part(stretch) for stretch in cut]
        audible = [bool(np.any(part)) for part in sound]
        path = self.root / "cuts" / safe_name(label) / f"{clip.stem}.flac"
        at = 0.0
        for stretch, part, heard in zip(cut, sound, audible, strict=True):
            where = (path.relative_to(self.root).as_posix(), f"{at:.3f}") if heard else ("", "")
            written.cuts.append((*_times(*stretch[:2]), stretch.reason, *where))
            at += len(part) / clip.rate if heard else 0.0
        if any(audible):
            joined = np.concatenate([part for part, heard in zip(sound, audible, strict=True) if heard])
            write_audio(path, np.clip(joined, -1.0, 1.0), clip.rate)

    def _bank(self, clip: _Clip) -> Path:
        return self.root / (HELD if clip.held else TRAIN)

    def _put(self, clip: _Clip, stretch: Stretch, folder: Path, ending: str) -> str:
        """Links to the clip if the stretch is all of it, else writes the stretch; returns the file's name."""
        whole = clip.seconds - (stretch.offset - stretch.onset) < WORTH_SECONDS
        suffix = clip.item.path.suffix.lower()
        folder.mkdir(parents=True, exist_ok=True)
        if whole and suffix in AUDIO_SUFFIXES:
            name = f"{clip.stem}{suffix}"
            os.symlink(clip.item.path.resolve(), folder / name)
            return name
        part = clip.samples if whole else clip.part(stretch)
        loud = float(np.abs(part).max()) > 1.0
        name = f"{clip.stem}{ending}.{'wav' if loud else 'flac'}"
        write_audio(folder / name, part, clip.rate)
        return name


@dataclass(frozen=True)
class _Clip:
    item: Item
    stem: str
    samples: np.ndarray
    rate: int
    held: bool

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def part(self, stretch: Stretch) -> np.ndarray:
        return self.samples[round(stretch.onset * self.rate) : round(stretch.offset * self.rate)]


def _overlap(first: Event, second: Event) -> float:
    return min(first.offset, second.offset) - max(first.onset, second.onset)


def _pieces(seconds: float, longest: float) -> list[float]:
    """Beginnings of pieces; a rest of less than a second is left out."""
    if seconds <= longest:
        return [0.0]
    return [k * PIECE_SECONDS for k in range(int((seconds - 1.0) // PIECE_SECONDS) + 1)]


def _times(onset: float, offset: float) -> tuple[str, str]:
    return f"{onset:.3f}", f"{offset:.3f}"
