"""What the page shows of one recording: its sound, pictures, levels and events, written beside the page."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import soundfile

from task_aware.base.errors import DataError
from task_aware.base.files import cannot_write, replacing
from task_aware.data.blocks import read_blocks
from task_aware.data.labels import Event
from task_aware.models.features import FeatureConfig
from task_aware.viewing.seek_table import add_seek_table

#: Points of the waveform per second, and in all.
PEAKS_PER_SECOND, MOST_PEAKS = 100, 60_000

#: A recording's file is a script, as a page from disk can load nothing else: a comment with its summary in the first
#: line, and a call with its data.
_SUMMARY, _BEFORE, _AFTER = "//", "receive(", ");\n"

#: What the data and the summary of a recording hold at least.
_KINDS: dict[str, Any] = {"name": str, "seconds": (int, float)}
_OF_RECORDING: dict[str, Any] = {"tracks": list, "rows": dict}
_OF_SUMMARY: dict[str, Any] = {"labels": list, "events": int, "bytes": int}

#: What to do about a file that is not as it was written.
ADVICE = "remove it, and run infer --html --skip-existing with the options of before"


@dataclass(frozen=True)
class Place:
    """Where the files of one recording are.

    Attributes:
        root: the folder of the page, which all names of files are relative to.
        data: the file of data; tiles are beside it.
        mixture: the recording as the detector hears it, FLAC.
    """

    root: Path
    data: Path
    mixture: Path

    def url(self, path: Path) -> str:
        """How the page names a file."""
        return quote(path.relative_to(self.root).as_posix())


def write_recording(
    place: Place,
    name: str,
    blocks: Iterable[np.ndarray],
    sources: Mapping[str, Path],
    rows: Mapping[str, Sequence[Event]],
    *,
    seconds: float,
    front_end: FeatureConfig,
) -> None:
    """Writes the sound, the pictures and the data of one recording.

    Args:
        place: where they go.
        name: the recording's name.
        blocks: the recording as the detector hears it, in blocks `[n]`.
        sources: the FLAC files of its sources, by their names; they get seek tables.
        rows: the events of each row, by its title.
        seconds: length of the recording.
        front_end: the detector's front end.
    """
    from task_aware.viewing.pictures import TILE, draw, mel_pieces, pooled_frames  # with matplotlib, slow to import

    rate = front_end.sample_rate
    peaks = _Peaks(max(rate / PEAKS_PER_SECOND, seconds * rate / MOST_PEAKS))
    _write_flac(place.mixture, peaks.watch(blocks), rate)
    loudest = max(float(mel.max()) for mel in mel_pieces(read_blocks(place.mixture, rate), front_end))
    tracks: list[dict[str, Any]] = []
    whole = 0.0
    for title, path in {"": place.mixture, **sources}.items():
        energy = _Energy()
        drawn = draw(
            energy.watch(read_blocks(path, rate)),
            front_end,
            loudest=loudest,
            seconds=seconds,
            tiles=place.data.with_name(path.stem),
        )
        whole = whole or energy.total
        add_seek_table(path)
        tracks.append(
            {
                "name": title,
                "audio": place.url(path),
                "level": _decibels(energy.total, whole),
                "picture": drawn.whole,
                "span": drawn.span,
                "tiles": [place.url(place.data.with_name(tile)) for tile in drawn.tiles],
            }
        )
    content = {
        "name": name,
        "seconds": seconds,
        "tile": TILE * pooled_frames(front_end) * front_end.frame_seconds,
        "peaks": base64.b64encode(peaks.values()).decode(),
        "tracks": tracks,
        "rows": {title: listed(events) for title, events in rows.items()},
    }
    summary = {
        "name": name,
        "seconds": seconds,
        "labels": sorted({event.label for events in rows.values() for event in events}),
        "events": max(map(len, rows.values()), default=0),
        "bytes": sum(path.stat().st_size for path in (place.mixture, *sources.values())),
    }
    with replacing(place.data) as temporary:
        lines = (_SUMMARY + json.dumps(summary), _BEFORE + json.dumps(content) + _AFTER)
        temporary.write_text("\n".join(lines), encoding="utf-8")


def read_summary(path: Path) -> dict[str, Any]:
    """Name, seconds, labels, number of events and bytes of sound of one recording, without reading all of its file.

    Raises DataError if the file is none that `write_recording` wrote.
    """
    return _read(path, whole=False)


def read_recording(path: Path) -> dict[str, Any]:
    """The data of one recording. Raises DataError if the file is none that `write_recording` wrote."""
    return _read(path, whole=True)


def _read(path: Path, *, whole: bool) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            first = file.readline().removeprefix(_SUMMARY)
            text = file.read().removeprefix(_BEFORE).removesuffix(_AFTER) if whole else first
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); {ADVICE}") from error
    kinds = _KINDS | (_OF_RECORDING if whole else _OF_SUMMARY)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kind) for key, kind in kinds.items()):
        raise DataError(f"{path} does not hold a recording to show; {ADVICE}")
    return content


def listed(events: Iterable[Event]) -> list[list[Any]]:
    """Events as the page has them: onset, offset, label, with times in milliseconds."""
    return [[round(event.onset, 3), round(event.offset, 3), event.label] for event in events]


def _write_flac(path: Path, blocks: Iterable[np.ndarray], rate: int) -> None:
    try:
        with (
            replacing(path) as temporary,
            soundfile.SoundFile(temporary, "w", rate, 1, subtype="PCM_16", format="FLAC") as file,
        ):
            for block in blocks:
                file.write(block)
    except soundfile.SoundFileError as error:
        raise cannot_write(path, error) from error


def _decibels(energy: float, whole: float) -> float | None:
    """None for what is silent, which JSON has no number for."""
    return round(10 * math.log10(energy / whole), 1) if energy > 0 and whole > 0 else None


class _Energy:
    """Sums the squares of samples that pass."""

    total = 0.0

    def watch(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            self.total += float(np.square(block, dtype=np.float64).sum())
            yield block


class _Peaks:
    """Keeps the largest absolute sample of each stretch of `length` samples that pass, as bytes."""

    def __init__(self, length: float) -> None:
        self._length = length
        self._where: list[np.ndarray] = []
        self._found: list[np.ndarray] = []

    def watch(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        done = 0
        for block in blocks:
            where = ((done + np.arange(len(block))) / self._length).astype(np.int64)
            starts = np.flatnonzero(np.diff(where, prepend=-1))
            self._where.append(where[starts])
            self._found.append(np.maximum.reduceat(np.abs(block), starts))
            done += len(block)
            yield block

    def values(self) -> bytes:
        where, found = np.concatenate(self._where), np.concatenate(self._found)
        peaks = np.zeros(where[-1] + 1)
        np.maximum.at(peaks, where, found)
        return (255 * peaks / max(peaks.max(), 1e-9)).round().astype(np.uint8).tobytes()
