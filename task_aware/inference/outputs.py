"""The outputs of `python -m task_aware.infer`: tables, plots and sources. Each file is written completely or not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile

from task_aware.annotations.writing import Labelled, label_paths, write_labels
from task_aware.base.errors import DataError, RecordingError
from task_aware.base.files import LONGEST_NAME, cannot_write, claim, hidden, is_hidden, replacing
from task_aware.base.tables import read_rows, write_table
from task_aware.base.types import Format, Layout
from task_aware.data.audio import Header
from task_aware.data.blocks import resampled
from task_aware.data.labels import Event, safe_name, written_times
from task_aware.data.scenes import source_name
from task_aware.inference.hearing import draw_detections
from task_aware.inference.predictor import Predictor
from task_aware.inference.recordings import Recording
from task_aware.inference.result import REST, Result
from task_aware.models.decoding import frame_edges
from task_aware.viewing.page import DATA
from task_aware.viewing.recordings import Place, write_recording

#: The recording itself among its sources; no class has this name in files.
MIXTURE = "mixture"

#: Samples that are added to the rest at once.
BLOCK = 2**20


@dataclass(frozen=True)
class Wanted:
    """The outputs to write for each recording besides its events; of the sources, the class of each by its name."""

    scores: bool = False
    plot: bool = False
    audio: bool = False
    html: bool = False
    export: Format | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    layout: Layout = "flac"

    def __post_init__(self) -> None:
        """Raises ValueError or DataError if the sources cannot be written in the layout."""
        if self.audio and self.layout == "s5":
            if REST not in self.sources:
                raise ValueError("the layout s5 needs a separator with sources of classes; this one has free sources")
            for label in self.sources.values():
                source_name("", 0, label)


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

    def sources(self, recording: Recording) -> dict[str, Path]:
        """A file for each source; the sources are those of classes, by their names, and others."""
        stem = self.root / "audio" / recording.stem
        if self.wanted.layout == "s5":
            return {
                name: stem.with_name(source_name(stem.name, number, label))
                for number, (name, label) in enumerate(self.wanted.sources.items())
            }
        return {name: stem.with_name(f"{stem.name}.{source_file(name)}.flac") for name in self.wanted.sources}

    def claim(self, *, shared: bool) -> None:
        """Keeps other runs out of the folder, unless they share it; alone, removes what a killed run left.

        Raises OutputError if another run has claimed it, or if it cannot be made.
        """
        claim(self.root, shared=shared)
        if shared:
            return
        for folder in ("events", "scores", "plots", "audio", "labels", "estimates", DATA):
            for path in filter(is_hidden, (self.root / folder).rglob(".*.tmp")):
                path.unlink(missing_ok=True)
        for name in ("events*.tsv", "errors*.tsv", "eval_results*.json", "index.html"):
            for path in filter(is_hidden, self.root.glob(f".{name}.*.tmp")):
                path.unlink(missing_ok=True)

    def kept_sources(self, result: Result) -> Sequence[str]:
        """The sources that have a file in the end; what is left without them has none in the layout s5."""
        return result.kept if self.wanted.layout == "flac" else [name for name in result.kept if name != REST]

    def estimates(self, recording: Recording) -> Path:
        """The table of the files of sources in the layout s5, with the probability of each."""
        return self.root / "estimates" / f"{recording.stem}.tsv"

    def labels(self, recording: Recording) -> Path:
        """The file for annotation programs without its suffix."""
        return self.root / "labels" / recording.stem

    def place(self, recording: Recording) -> Place:
        """The files of the page, which has the recording's sound beside those of its sources."""
        mixture = self.root / "audio" / f"{recording.stem}.{MIXTURE}.flac"
        return Place(self.root, self.root / DATA / f"{recording.stem}.js", mixture)

    def are_complete(self, recording: Recording) -> bool:
        """Whether all requested outputs of a recording exist; the events are written last."""
        paths = [self.events(recording)]
        if self.wanted.scores:
            paths.append(self.scores(recording))
        if self.wanted.plot:
            paths.append(self.plot(recording))
        if self.wanted.html:
            paths.append(self.place(recording).data)
        if self.wanted.export:
            paths += label_paths(self.labels(recording), self.wanted.export, [""])
        if self.wanted.audio and self.wanted.layout == "s5":
            paths.append(self.estimates(recording))
        if self.wanted.audio and self.wanted.layout == "flac":  # of classes, only those that were heard, and the rest
            paths += list(self.sources(recording).values())[-1:]
        if not all(path.is_file() for path in paths):
            return False
        if self.wanted.audio and self.wanted.layout == "s5":
            folder = next(iter(self.sources(recording).values())).parent
            return all((folder / row[0]).is_file() for _, row in list(read_rows(self.estimates(recording)))[1:])
        return True

    def check_names(self, recording: Recording) -> None:
        """Raises RecordingError if its results cannot have the recording's name."""
        try:
            recording.name.encode()
        except UnicodeEncodeError as error:
            raise RecordingError(f"the name of {recording.name!r} is not UTF-8; rename it") from error
        sources = [*self.sources(recording).values(), self.place(recording).mixture]
        tiles = [path.with_suffix(".0000.png") for path in sources]
        paths = [self.events(recording), self.scores(recording), *sources, *(tiles if self.wanted.html else ())]
        paths += label_paths(self.labels(recording), self.wanted.export, [""]) if self.wanted.export else ()
        if max(len(path.name.encode()) for path in paths) > LONGEST_NAME:
            raise RecordingError(
                f"{recording.path} has a name so long that those of its results would exceed {LONGEST_NAME} bytes; "
                "rename it"
            )

    def of_all(self, name: str, part: str | None) -> Path:
        """A file about all recordings, or about part `i/n` of them."""
        path = self.root / name
        return path.with_stem(f"{path.stem}-{part.replace('/', '-of-')}") if part else path

    def write_tables(self, recordings: Sequence[Recording], errors: dict[str, str], part: str | None) -> Path:
        """Writes one table with the events of all recordings in DESED's format, and one with the errors, by recording.

        A recording without events gets a row with empty fields. One whose own table, of an earlier run, cannot be read
        is added to the errors. Of part `i/n` of the recordings, their names say so. Returns the path of the errors.
        """
        failures = self.of_all("errors.tsv", part)

        def rows() -> Iterator[Sequence[str]]:
            for recording in recordings:
                if recording.name in errors:
                    continue
                try:
                    found = [row for _, row in read_rows(self.events(recording))][1:]
                except (DataError, OSError) as error:
                    errors[recording.name] = f"its table cannot be read, remove it and run again: {error}"
                else:
                    yield from ((recording.name, *row) for row in found or [["", "", ""]])

        write_table(self.of_all("events.tsv", part), ("filename", "onset", "offset", "event_label"), rows())
        write_table(failures, ("filename", "error"), errors.items())
        return failures


def write_event_table(path: Path, events: Iterable[Event]) -> None:
    """Writes the events of one recording (onset, offset, event_label), with the times of `written_times`."""
    write_table(path, ("onset", "offset", "event_label"), ((*written_times(each), each.label) for each in events))


def write_scores(path: Path, result: Result, labels: Sequence[str], frame_seconds: float) -> None:
    """Writes frame probabilities (onset, offset, one column per class) in the format of sed_scores_eval."""
    edges = frame_edges(len(result.scores), frame_seconds, max(result.seconds, frame_seconds))
    frames = np.column_stack([edges[:-1], edges[1:], result.scores[: len(edges) - 1]])
    write_table(path, ("onset", "offset", *labels), ([f"{value:.6f}" for value in frame] for frame in frames))


def export(outputs: Outputs, recording: Recording, result: Result, predictor: Predictor) -> None:
    """Writes the events of a recording for an annotation program."""
    assert outputs.wanted.export is not None
    f_max = predictor.detector.feature_config.f_max
    labelled = Labelled(recording.name, result.seconds, f_max, {"": result.events})
    write_labels(outputs.labels(recording), outputs.wanted.export, labelled)


def write_view(
    outputs: Outputs, recording: Recording, result: Result, predictor: Predictor, kept: Sequence[str]
) -> None:
    """Writes what the page shows of a recording: its sound and pictures, those of the sources `kept`, and the events.

    The recording is read again.
    """
    rows = {"events": result.events}
    if result.alone is not None:
        rows = {"detector alone": result.alone, "with separation": result.events}
    write_recording(
        outputs.place(recording),
        recording.name,
        predictor.read(recording.path),
        {name: outputs.sources(recording)[name] for name in kept},
        rows,
        seconds=result.seconds,
        front_end=predictor.detector.feature_config,
    )


def draw(path: Path, recording: Recording, result: Result, predictor: Predictor, minutes: float) -> None:
    """Plots the beginning of a recording: mel-spectrogram, frame probabilities and detected events."""
    rate = predictor.sample_rate
    seconds = min(60 * minutes, result.seconds)
    blocks = predictor.read(recording.path, block_seconds=seconds)
    samples = np.concatenate(list(islice(blocks, 2)))[: round(seconds * rate)]
    title = recording.name + (f" (first {minutes:g} min)" if seconds < result.seconds else "")
    draw_detections(path, samples, result, predictor, title)


def source_file(name: str) -> str:
    """The name of a source in files."""
    return name if name == REST else safe_name(name)


class SourceFiles:
    """Writes the separated sources of one recording piece by piece, as FLAC files with 24 bits.

    Raises OutputError if they cannot be written.

    Args:
        paths: where each source goes; the suffix is the format, flac or wav.
        sample_rate: sample rate in Hz.
        recording: header of the recording, of which a wav has the sample rate and the length.
    """

    def __init__(self, paths: Mapping[str, Path], sample_rate: int, recording: Header | None = None) -> None:
        self._paths = paths
        self._recording = recording
        # other names than those of `replacing`, to whose files these are converted
        self._temporary = {name: hidden(path.with_name(f"{path.name}.part")) for name, path in paths.items()}
        first = next(iter(paths.values()))
        self._sum = hidden(first.with_name(f"{first.name}.sum"))  # of the rest and what is added to it
        self._files: dict[str, soundfile.SoundFile] = {}
        with self._writing():
            first.parent.mkdir(parents=True, exist_ok=True)
            for name, path in self._temporary.items():
                self._files[name] = self._open(path, sample_rate)

    @staticmethod
    def _open(path: Path, sample_rate: int) -> soundfile.SoundFile:
        return soundfile.SoundFile(path, "w", sample_rate, 1, subtype="PCM_24", format="FLAC")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, soundfile.SoundFileError) as error:
            self.discard()
            raise cannot_write(next(iter(self._paths.values())), getattr(error, "strerror", None) or error) from error

    def write(self, sources: np.ndarray) -> None:
        """Appends `[S, n]`; what exceeds full scale is clipped."""
        with self._writing():
            for file, samples in zip(self._files.values(), sources, strict=True):
                file.write(samples)

    def close(self, kept: Sequence[str]) -> None:
        """Moves the files of these sources to their final paths. The others are added to `rest` if that is one.

        What an earlier run wrote of the others is removed.
        """
        with self._writing():
            for file in self._files.values():
                file.close()
            dropped = [name for name in self._paths if name not in kept]
            if REST in kept and dropped:
                self._add_to_rest(dropped)
            for name in dropped:
                self._paths[name].unlink(missing_ok=True)
            for name in kept:
                if self._recording is not None:
                    self._write_as(self._recording, self._temporary[name], self._paths[name])
                else:
                    os.replace(self._temporary[name], self._paths[name])
        self.discard()

    @staticmethod
    def _write_as(recording: Header, source: Path, path: Path) -> None:
        """Writes a source as a wav in 24 bits, as long and at the same rate as the recording."""
        rate, missing = recording.sample_rate, round(recording.seconds * recording.sample_rate)
        with (
            replacing(path) as temporary,
            soundfile.SoundFile(source) as file,
            soundfile.SoundFile(temporary, "w", rate, 1, subtype="PCM_24", format="WAV") as written,
        ):
            for block in resampled(file.blocks(BLOCK, dtype="float32"), file.samplerate, rate):
                written.write(block[:missing])
                missing -= min(missing, len(block))
            written.write(np.zeros(missing, dtype=np.float32))

    def discard(self) -> None:
        """Removes what was written and is not at its final path."""
        for file in self._files.values():
            with suppress(soundfile.SoundFileError):  # of what cannot be written any more
                file.close()
        for path in (*self._temporary.values(), self._sum):
            path.unlink(missing_ok=True)

    def _add_to_rest(self, names: Sequence[str]) -> None:
        with ExitStack() as stack:
            parts = [stack.enter_context(soundfile.SoundFile(self._temporary[name])) for name in (REST, *names)]
            total = stack.enter_context(self._open(self._sum, parts[0].samplerate))
            while (blocks := np.stack([part.read(BLOCK) for part in parts])).size:
                total.write(blocks.sum(0))
        os.replace(self._sum, self._temporary[REST])
