"""Analyses many recordings one after another: threads decode ahead, and results are written as they are ready."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import numpy as np
from tqdm import tqdm

from task_aware.base.errors import DataError, RecordingError
from task_aware.data.audio import audio_header, audio_seconds
from task_aware.data.blocks import read_ahead
from task_aware.inference.outputs import Outputs, SourceFiles, draw, export, write_event_table, write_scores, write_view
from task_aware.inference.predictor import Predictor
from task_aware.inference.recordings import Recording
from task_aware.inference.result import Result
from task_aware.inference.submission import write_estimates
from task_aware.inference.windows import Window


def seconds_of(recordings: Sequence[Recording], jobs: int) -> dict[str, float]:
    """Lengths of the recordings in seconds, from their headers, by name; 0 if a recording cannot be opened."""

    def seconds(recording: Recording) -> float:
        with suppress(OSError, ValueError):  # RecordingError is a ValueError, as is a name that is no path
            return audio_seconds(recording.path)
        return 0.0

    with ThreadPoolExecutor(jobs) as pool:
        return dict(zip((recording.name for recording in recordings), pool.map(seconds, recordings), strict=True))


class Writer:
    """Writes the results of recordings as they are ready.

    Args:
        outputs: what is written and where.
        predictor: the predictor that makes the results.
        seconds: lengths of the recordings by name.
        plot_minutes: length of the beginning of a recording that is plotted.
    """

    def __init__(self, outputs: Outputs, predictor: Predictor, seconds: dict[str, float], plot_minutes: float) -> None:
        self.outputs = outputs
        self.predictor = predictor
        self.seconds = seconds
        self.plot_minutes = plot_minutes
        self._sources: dict[Recording, SourceFiles] = {}

    def write_sources(self, recording: Recording, sources: np.ndarray) -> None:
        """Appends to a recording's sources `[S, n]`."""
        if recording not in self._sources:
            header = audio_header(recording.path) if self.outputs.wanted.layout == "s5" else None
            self._sources[recording] = SourceFiles(self.outputs.sources(recording), self.predictor.sample_rate, header)
        self._sources[recording].write(sources)

    def finish(self, recording: Recording, result: Result) -> None:
        """Writes a recording's other outputs; its events come last, as they mark the recording as complete."""
        wanted, detector = self.outputs.wanted, self.predictor.detector
        kept = self.outputs.kept_sources(result) if wanted.audio else ()
        if wanted.scores:
            write_scores(self.outputs.scores(recording), result, detector.labels, detector.frame_seconds)
        if wanted.plot:
            draw(self.outputs.plot(recording), recording, result, self.predictor, self.plot_minutes)
        if wanted.audio:
            self._sources.pop(recording).close(kept)
            if wanted.layout == "s5":
                files = {name: self.outputs.sources(recording)[name] for name in kept}
                write_estimates(self.outputs.estimates(recording), files, wanted.sources, result.heard)
        if wanted.html:
            write_view(self.outputs, recording, result, self.predictor, kept)
        if wanted.export:
            export(self.outputs, recording, result, self.predictor)
        write_event_table(self.outputs.events(recording), result.events)

    def discard(self, recording: Recording) -> None:
        """Discards the partial outputs of a recording that failed."""
        if recording in self._sources:
            self._sources.pop(recording).discard()

    def close(self) -> None:
        """Discards the partial outputs of all recordings that are not finished."""
        for recording in list(self._sources):
            self.discard(recording)


def windows_of(predictor: Predictor, outputs: Outputs, recording: Recording) -> Iterator[Window]:
    """Yields a recording's windows, reading the file as they are requested.

    Raises RecordingError for whatever is wrong with this recording alone.
    """
    try:
        outputs.check_names(recording)
        yield from predictor.windowing.cut(predictor.read(recording.path), str(recording.path))
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise RecordingError(f"{recording.path} cannot be read ({error})") from error


def analyse(predictor: Predictor, recordings: Sequence[Recording], writer: Writer, jobs: int) -> dict[str, str]:
    """Analyses the recordings and writes their results; returns the errors of those that failed, by name."""
    errors: dict[str, str] = {}
    total = round(sum(writer.seconds.values()))
    with tqdm(total=total, unit="s", desc="audio", disable=None, smoothing=0.05) as bar:

        def heard(
            items: Iterable[tuple[Recording, Window | RecordingError]],
        ) -> Iterator[tuple[Recording, Window | RecordingError]]:
            done = 0.0
            for recording, item in items:
                if isinstance(item, Window):
                    seconds = item.stop / predictor.sample_rate
                    bar.update(round(seconds - done, 2))
                    done = 0.0 if item.last else seconds
                else:
                    done = 0.0
                yield recording, item

        def fail(recording: Recording, error: RecordingError) -> None:
            errors[recording.name] = str(error)
            writer.discard(recording)
            tqdm.write(f"skipped: {error}", file=sys.stderr)

        items = read_ahead(recordings, partial(windows_of, predictor, writer.outputs), jobs)
        sink = writer.write_sources if writer.outputs.wanted.audio else None
        try:
            for recording, result in predictor.analyse(heard(items), sink, predictor.most_workers):
                if isinstance(result, RecordingError):
                    fail(recording, result)
                    continue
                try:
                    writer.finish(recording, result)
                except RecordingError as error:  # `draw` reads it again
                    fail(recording, error)
        finally:
            writer.close()
    return errors
