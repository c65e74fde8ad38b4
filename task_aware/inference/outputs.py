"""The outputs of `python -m task_aware.infer`: tables, plots and sources. Each file is written completely or not."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
import torch

from task_aware.base.files import replacing
from task_aware.data.blocks import read_blocks
from task_aware.data.labels import Event
from task_aware.inference.predictor import Result
from task_aware.inference.recordings import Recording
from task_aware.models.decoding import frame_edges
from task_aware.models.detector import Detector
from task_aware.plots import plot_separation

#: Largest size of a WAV file, whose header counts up to 4 GiB; longer sources are written as RF64, its extension.
WAV_BYTES = 2**32 - 2**16


@dataclass(frozen=True)
class Wanted:
    """The outputs to write for each recording besides its events."""

    scores: bool = False
    plot: bool = False
    audio: bool = False
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """Paths of the outputs below a folder."""

    root: Path
    wanted: Wanted

    def events(self, recording: Recording) -> Path:
        return self.root / "events" / f"{recording.stem}.tsv"

    def scores(self, recording: Recording) -> Path:
        return self.root / "scores" / f"{recording.stem}.tsv"

    def plot(self, recording: Recording) -> Path:
        return self.root / "plots" / f"{recording.stem}.png"

    def sources(self, recording: Recording) -> list[Path]:
        stem = self.root / "audio" / recording.stem
        return [stem.with_name(f"{stem.name}_{name}.wav") for name in self.wanted.sources]

    def are_complete(self, recording: Recording) -> bool:
        """Whether all requested outputs of a recording exist; the events are written last."""
        paths = [self.events(recording)]
        if self.wanted.scores:
            paths.append(self.scores(recording))
        if self.wanted.plot:
            paths.append(self.plot(recording))
        if self.wanted.audio:
            paths += self.sources(recording)
        return all(path.is_file() for path in paths)

    def write_tables(self, recordings: Sequence[Recording], errors: Mapping[str, str], ending: str = "") -> None:
        """Writes one table with the events of all recordings and one with the errors, by recording."""
        done = {recording.name: self.events(recording) for recording in recordings if recording.name not in errors}
        join_event_tables(self.root / f"events{ending}.tsv", done)
        write_table(self.root / f"errors{ending}.tsv", ("filename", "error"), errors.items())


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes a tab-separated table."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_event_table(path: Path, events: Iterable[Event]) -> None:
    """Writes the events of one recording (onset, offset, event_label), in seconds with three decimals."""
    rows = ((f"{event.onset:.3f}", f"{event.offset:.3f}", event.label) for event in events)
    write_table(path, ("onset", "offset", "event_label"), rows)


def join_event_tables(path: Path, tables: Mapping[str, Path]) -> None:
    """Joins the tables of `write_event_table` into one in DESED's format (filename, onset, offset, event_label).

    A recording without events gets a row with empty fields.
    """

    def rows() -> Iterator[Sequence[str]]:
        for name, table in tables.items():
            with table.open(encoding="utf-8", newline="") as file:
                found = list(csv.reader(file, delimiter="\t"))[1:]
            yield from ((name, *row) for row in found or [["", "", ""]])

    write_table(path, ("filename", "onset", "offset", "event_label"), rows())


def write_scores(path: Path, result: Result, labels: Sequence[str], frame_seconds: float) -> None:
    """Writes frame probabilities (onset, offset, one column per class) in the format of sed_scores_eval."""
    edges = frame_edges(len(result.scores), frame_seconds, max(result.seconds, frame_seconds))
    table = np.column_stack([edges[:-1], edges[1:], result.scores])
    with replacing(path) as temporary:
        np.savetxt(
            temporary, table, fmt="%.6f", delimiter="\t", comments="", header="\t".join(("onset", "offset", *labels))
        )


def draw(
    path: Path, recording: Recording, result: Result, detector: Detector, threshold: float, minutes: float
) -> None:
    """Plots the beginning of a recording: mel-spectrogram, frame probabilities and detected events."""
    front_end = detector.feature_config
    seconds = min(60 * minutes, result.seconds)
    n_samples = round(seconds * front_end.sample_rate)
    blocks = read_blocks(recording.path, front_end.sample_rate, block_seconds=seconds)
    samples = np.concatenate(list(islice(blocks, 2)))[:n_samples]
    mel = front_end.mel(torch.from_numpy(samples))
    frames = result.scores[: round(seconds / detector.frame_seconds)]
    plot_separation(
        path,
        mel,
        mel.new_empty(0, *mel.shape),
        frames,
        np.empty((0, *frames.shape)),
        detector.labels,
        frame_seconds=front_end.frame_seconds,
        output_frame_seconds=detector.frame_seconds,
        f_max=front_end.f_max,
        estimated=[event for event in result.events if event.onset < seconds],
        threshold=threshold,
        title=recording.name + (f" (first {minutes:g} min)" if seconds < result.seconds else ""),
    )


class SourceFiles:
    """Writes the separated sources of one recording piece by piece, as 32-bit float WAV files."""

    def __init__(self, paths: Sequence[Path], sample_rate: int, seconds: float) -> None:
        self._paths = paths
        self._temporary = [path.with_name(f".{path.name}.tmp") for path in paths]
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        kind = "RF64" if 4 * seconds * sample_rate > WAV_BYTES else "WAV"
        self._files = [
            soundfile.SoundFile(path, "w", sample_rate, 1, subtype="FLOAT", format=kind) for path in self._temporary
        ]

    def write(self, sources: np.ndarray) -> None:
        """Appends `[S, n]`."""
        for file, samples in zip(self._files, sources, strict=True):
            file.write(samples)

    def close(self, *, keep: bool) -> None:
        """Moves the finished files to their final paths, or removes them."""
        for file, temporary, path in zip(self._files, self._temporary, self._paths, strict=True):
            file.close()
            if keep:
                os.replace(temporary, path)
            else:
                temporary.unlink()
