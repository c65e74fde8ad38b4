"""`Predictor`: detects events in recordings of any length and separates their sources."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from task_aware.base.errors import RecordingError
from task_aware.data.blocks import BLOCK_SECONDS, read_blocks
from task_aware.data.labels import Event
from task_aware.data.offset import without_offset
from task_aware.data.samples import check_level
from task_aware.inference.hearing import Hearing, hear
from task_aware.inference.joining import Join
from task_aware.inference.result import REST, Result, kept_sources
from task_aware.inference.runner import Runner
from task_aware.inference.waveforms import at_rate, heard_samples
from task_aware.inference.windows import Window, Windowing
from task_aware.models.copies import listening_copy
from task_aware.models.crnn import CRNN
from task_aware.models.decoding import decode
from task_aware.models.denoiser import DenoisedDetector
from task_aware.models.detector import median_frames_of
from task_aware.models.merging import check_merge
from task_aware.models.opening import detector_of, open_model, pick_device
from task_aware.models.options import Merge, Precision
from task_aware.models.precision import warn_if_slow
from task_aware.models.system import Separator

#: More threads than these share the work on each window, so that memory does not grow with the number of cores.
MOST_WORKERS = 8

Key = TypeVar("Key", bound=Hashable)
Waveform = TypeVar("Waveform", np.ndarray, Tensor)


class Predictor:
    """Detects events in recordings and separates their sources.

    Recordings up to `window_seconds` are analysed as a whole, exactly as by `python -m task_aware.evaluate`. Longer
    ones are analysed in overlapping windows whose results are cross-faded. A predictor can be pickled, so it can run
    in other processes.

    Args:
        model: checkpoint of a separator or a detector, or the module itself, which is not changed: the predictor works
            on a copy, which shares the weights if they are on its device.
        detector: only for a separator's checkpoint: a detector to use instead of the one in the file, required if the
            file has none; a checkpoint, or `package.module:factory` for your own.
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, ...
        precision: precision of the networks; features and masking stay in float32.
        merge: rule by which detections of the sources are merged; replaces the separator's own.
        threshold: probability from which on a class is active.
        median_frames: length of the median filter, output frames; default: the detector's own.
        window_seconds: approximate length of the windows.
        overlap_seconds: overlap of neighbouring windows, at most half a window.
        channel: the channel to take, counted from 0; default: the mean of all, or W of an Ambisonic file.
        batch_size: windows per batch; default: 32 on a GPU and 1 on the CPU, where larger batches exceed the caches.

    Raises:
        CheckpointError: the checkpoint is missing, broken or of another kind, or it needs another detector.
        ValueError: an option does not suit the model.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module,
        *,
        detector: str | os.PathLike[str] | None = None,
        device: str = "auto",
        precision: Precision = "32-true",
        merge: Merge | None = None,
        threshold: float = 0.5,
        median_frames: int | None = None,
        window_seconds: float = 20.0,
        overlap_seconds: float = 5.0,
        channel: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.device = pick_device("auto") if device == "auto" else _device(device)
        if not isinstance(model, nn.Module):
            self.model = open_model(model, detector).to(self.device).eval()
        elif detector is None:
            self.model = listening_copy(model, self.device)
        else:
            raise ValueError(
                "detector can only be passed together with a checkpoint; pass a module that contains its detector"
            )
        self.detector = detector_of(self.model)
        self.separator = self.model if isinstance(self.model, Separator) else None
        if isinstance(self.model, DenoisedDetector):
            raise ValueError(
                "a denoiser can only be evaluated, as a baseline; use the checkpoint of a separator or a detector"
            )
        if merge is not None:
            separator = self._separator("merging detections")
            check_merge(separator.sources, merge)
            separator.merge = merge
        self.precision = precision
        warn_if_slow(precision, self.device)
        self.threshold = threshold
        self.median_frames = median_frames_of(self.detector) if median_frames is None else median_frames
        self.windowing = Windowing.of(self.detector, window_seconds, overlap_seconds)
        self.channel = channel
        self.batch_size = batch_size or (1 if self.device.type == "cpu" else 32)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the scores' columns."""
        return self.detector.labels

    @property
    def source_labels(self) -> dict[str, str]:
        """The class of each separated source by its name; of free sources and of `rest`, the last, their name."""
        if self.separator is None:
            return {}
        return self.separator.source_labels | ({} if self.separator.slots is None else {REST: REST})

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of the separated sources; none for a detector alone. The last one beside those of classes is `rest`."""
        return tuple(self.source_labels)

    @property
    def n_sources(self) -> int:
        """Number of sources that the model separates; 0 for a detector alone."""
        return len(self.source_names)

    @property
    def most_workers(self) -> int:
        """How many workers make the best of torch's threads; 1 if the device is a GPU, or the detector not ours.

        Others may not be made for several threads.
        """
        ours = self.device.type == "cpu" and isinstance(self.detector, CRNN)
        return min(torch.get_num_threads(), MOST_WORKERS) if ours else 1

    @property
    def sample_rate(self) -> int:
        """Sample rate of the detector, Hz; recordings are resampled to it."""
        return self.detector.feature_config.sample_rate

    def read(self, path: Path, *, block_seconds: float = BLOCK_SECONDS) -> Iterator[np.ndarray]:
        """Yields a recording in blocks `[n]` as the detector hears it: one channel, at its rate, without an offset.

        Raises RecordingError as `read_blocks` does, or if the recording is far beyond full scale.
        """

        def blocks() -> Iterator[np.ndarray]:
            for block in read_blocks(path, self.sample_rate, block_seconds=block_seconds, channel=self.channel):
                check_level(block, str(path))
                yield block

        return without_offset(blocks(), self.sample_rate)

    def detect(self, waveform: np.ndarray | Tensor, sample_rate: int) -> list[Event]:
        """Detects the events in a recording `[N]` or `[channels, N]` (averaged, or `channel`) of any sample rate.

        Floats have full scale 1; integers of 8, 16 and 32 bits are divided by the full scale of their type. Raises
        ValueError if the recording is something else, too short, not finite, or more than 40 dB above full scale.
        """
        return self.analyse_waveform(waveform, sample_rate).events

    def hear(self, recording: str | os.PathLike[str] | np.ndarray, sample_rate: int | None = None) -> Hearing:
        """Detects the events in a recording and separates it: a result that shows itself in notebooks.

        Args:
            recording: a file, or samples as `detect` takes them. Its sound is kept in memory.
            sample_rate: of samples, their sample rate in Hz.
        """
        return hear(self, recording, sample_rate)

    def separate(self, waveform: Waveform, sample_rate: int) -> Waveform:
        """Separates a recording `[N]` or `[channels, N]` into sources `[S, N]` at the same sample rate.

        The sources are floats, whatever the recording is. The masks on mel bands are applied to the mixture's Fourier
        transform, see `task_aware.models.projection`. Frequencies above half the detector's sample rate are lost.
        Sources of classes and the rest, which is the last, sum to the recording without its constant offset; a class
        that is not plausible in the recording is silent.

        Raises ValueError if the model is a detector alone.
        """
        self._separator("separating")
        parts: list[np.ndarray] = []
        self.analyse_waveform(waveform, sample_rate, lambda _, sources: parts.append(sources))
        joined = at_rate(np.concatenate(parts, axis=-1), self.sample_rate, sample_rate)
        sources, n_samples = torch.from_numpy(joined), np.shape(waveform)[-1]
        sources = nn.functional.pad(sources, (0, max(0, n_samples - sources.shape[-1])))[..., :n_samples]
        return sources.to(waveform.device) if isinstance(waveform, Tensor) else sources.numpy()

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Detects the events in a batch of rows, such as those that Ray Data's `map_batches` passes.

        Args:
            batch: columns of equal length: either `path`, the files to read, or `waveform` (each `[N]` or
                `[channels, N]`) and `sample_rate`.

        Returns:
            The batch without `waveform` and with two more columns: `events` (an object array; for each row a list of
            dicts with onset, offset, event_label) and `error` (strings, empty on success). An error in one row does
            not affect the others.
        """
        source = "waveform" if "waveform" in batch else "path"
        if source not in batch or (source == "waveform" and "sample_rate" not in batch):
            raise ValueError(
                f"the batch has the columns {', '.join(batch)}; expected path, or both waveform and sample_rate"
            )
        n_rows = len(batch[source])
        if source == "waveform" and len(batch["sample_rate"]) != n_rows:
            raise ValueError(
                f"the batch has {n_rows} waveforms, but {len(batch['sample_rate'])} sample rates; give as many"
            )
        events, errors = np.empty(n_rows, dtype=object), [""] * n_rows

        def windows() -> Iterator[tuple[int, Window | RecordingError]]:
            for row in range(n_rows):
                try:
                    for window in self._windows_of_row(batch, row):
                        yield row, window
                except (OSError, ValueError) as error:
                    yield row, RecordingError(str(error))

        for row, result in self.analyse(windows()):
            failed = isinstance(result, RecordingError)
            events[row] = [] if failed else [_row(event) for event in cast(Result, result).events]
            errors[row] = str(result) if failed else ""
        others = {name: column for name, column in batch.items() if name != "waveform"}
        return {**others, "events": events, "error": np.array(errors)}

    def analyse_waveform(
        self,
        waveform: np.ndarray | Tensor,
        sample_rate: int,
        sink: Callable[[int, np.ndarray], None] | None = None,
    ) -> Result:
        """Computes events and scores of a recording; `sink` is as in `analyse`.

        Raises ValueError as `detect` does, or if the detector answers NaN.
        """
        return self.analyse_samples(self.heard(waveform, sample_rate), sink)

    def analyse_samples(self, samples: np.ndarray, sink: Callable[[int, np.ndarray], None] | None = None) -> Result:
        """As `analyse_waveform`, of samples `[N]` as `heard` returns them."""
        windows = self.windowing.cut([samples], "waveform")
        ((_, result),) = self.analyse(((0, window) for window in windows), sink)
        if isinstance(result, RecordingError):
            raise result
        return result

    def analyse(
        self,
        windows: Iterable[tuple[Key, Window | RecordingError]],
        sink: Callable[[Key, np.ndarray], None] | None = None,
        workers: int = 1,
    ) -> Iterator[tuple[Key, Result | RecordingError]]:
        """Yields the results of many recordings, each as soon as its last window has been analysed.

        Args:
            windows: the windows of each recording in order, or the error that ended it.
            sink: called with the next samples `[S, n]` of a recording's sources, at the detector's sample rate.
            workers: batches of windows that are computed at once, by threads that share those of torch.
        """
        runner = Runner(self.model, self.windowing, self.device, self.precision, self.batch_size, workers)
        joins: dict[Key, Join] = {}
        failed: set[Key] = set()
        for key, answer in runner.answers(windows, with_sources=sink is not None):
            if isinstance(answer, RecordingError):
                failed.add(key)
                joins.pop(key, None)
                yield key, answer
            elif key not in failed:  # windows read before the error may be analysed after it
                join = joins.setdefault(key, Join(self.windowing, slots=getattr(self.separator, "slots", None)))
                for sources in join.add(answer):
                    if sink is not None:
                        sink(key, sources)
                if answer.window.last:
                    del joins[key]
                    yield key, self._result(join, answer.window.stop / self.sample_rate)

    def _windows_of_row(self, batch: Mapping[str, Any], row: int) -> Iterator[Window]:
        if "waveform" in batch:
            return self.windowing.cut([self.heard(batch["waveform"][row], batch["sample_rate"][row])], "waveform")
        path = batch["path"][row]
        if not isinstance(path, (str, os.PathLike)):
            raise RecordingError(f"path is of type {type(path).__name__}; give the path of a recording as a string")
        return self.windowing.cut(self.read(Path(path)), str(path))

    def _result(self, join: Join, seconds: float) -> Result | RecordingError:
        """The result of a whole recording."""
        scores = join.scores()
        if any(np.isnan(each).any() for each in scores):
            return RecordingError("the detector answers NaN for this recording; check the recording and the detector")
        events = [
            decode(
                each,
                self.labels,
                self.detector.frame_seconds,
                threshold=self.threshold,
                median_frames=self.median_frames,
                duration=seconds,
            )
            for each in scores
        ]
        heard = {} if join.heard is None else dict(zip(self.source_labels, join.heard.tolist(), strict=False))
        kept = kept_sources(events[0], self.source_labels, heard, self.threshold)
        return Result(events[0], scores[0], seconds, events[1] if len(events) > 1 else None, kept, heard)

    def _separator(self, purpose: str) -> Separator:
        if self.separator is None:
            raise ValueError(f"this checkpoint holds a detector alone, but {purpose} needs a separator")
        return self.separator

    def heard(self, waveform: np.ndarray | Tensor, sample_rate: int) -> np.ndarray:
        """A recording as the detector hears it, `[N]`: one channel, at its rate, without an offset.

        Raises ValueError as `detect` does.
        """
        return heard_samples(waveform, sample_rate, self.sample_rate, self.channel)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"the device {name!r} cannot be used ({reason}); choose auto, cpu or an available GPU"
        ) from error
    return device


def _row(event: Event) -> dict[str, Any]:
    return {"onset": event.onset, "offset": event.offset, "event_label": event.label}
