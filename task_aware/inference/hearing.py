"""A recording with what was found in it, which shows itself in a notebook."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import soundfile
import torch

from task_aware.base.errors import TaskAwareError
from task_aware.inference.result import REST, Result
from task_aware.models.detector import Detector
from task_aware.models.system import Separator

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

#: Seconds of a recording that a notebook shows and plays.
SHOWN_SECONDS = 60.0


class Listener(Protocol):
    """What this file needs of a `Predictor`."""

    detector: Detector
    separator: Separator | None
    threshold: float

    @property
    def sample_rate(self) -> int: ...

    @property
    def source_names(self) -> tuple[str, ...]: ...

    def read(self, path: Path) -> Iterator[np.ndarray]: ...

    def heard(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray: ...

    def analyse_samples(self, samples: np.ndarray, sink: Callable[[int, np.ndarray], None] | None = None) -> Result: ...


@dataclass(frozen=True, kw_only=True)
class Hearing(Result):
    """A recording with what was found in it. In a notebook it shows itself: a picture, players and a table.

    Attributes:
        name: what the recording is called.
        sample_rate: sample rate of the sound, Hz.
        recording: the recording as the detector hears it, float32 `[N]`.
        sources: its sources by name, float32 `[N]` each: those of classes that were detected and the rest, or all free
            ones; none of a detector alone.
    """

    name: str
    sample_rate: int
    recording: np.ndarray = field(repr=False)
    sources: Mapping[str, np.ndarray] = field(repr=False)
    _predictor: Listener = field(repr=False)

    def plot(self) -> Figure:
        """Draws the recording (its first minute), its sources and the events, as a figure of matplotlib."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # which importing the package does not need

        from task_aware.plots.separation import draw_separation

        samples, title = self._shown(self.recording), self.name
        if len(samples) < len(self.recording):
            title += f" (first {SHOWN_SECONDS:g} s)"
        if self._predictor.separator is None:
            figure = draw_detections(None, samples, self, self._predictor, title)
        else:
            events = [event for event in self.events if event.onset < len(samples) / self.sample_rate]
            separator = self._predictor.separator
            figure = draw_separation(None, separator, samples, reference=None, estimated=events, title=title)
        FigureCanvasAgg(figure)
        return figure

    def to_dataframe(self) -> pandas.DataFrame:
        """The events as a table of pandas: onset, offset, event_label.

        Raises TaskAwareError if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise TaskAwareError("pandas is not installed; run `pip install pandas`, or use `.events`") from error
        rows = [(event.onset, event.offset, event.label) for event in self.events]
        return pandas.DataFrame(rows, columns=["onset", "offset", "event_label"])

    def _repr_html_(self) -> str:
        """What a notebook shows; names are text in it, whatever they hold."""
        picture = io.BytesIO()
        self.plot().savefig(picture, format="png")
        players = {"recording": self.recording, **self.sources}
        parts = [
            f'<img style="max-width: 100%" alt="events in {escape(self.name)}" src="{_url("image/png", picture)}">',
            "<table><tr><th>sound</th><th></th></tr>",
            *(f"<tr><td>{escape(name)}</td><td>{self._player(samples)}</td></tr>" for name, samples in players.items()),
            "</table>",
            "<table><tr><th>onset (s)</th><th>offset (s)</th><th>event</th></tr>",
            *(
                f"<tr><td>{event.onset:.3f}</td><td>{event.offset:.3f}</td><td>{escape(event.label)}</td></tr>"
                for event in self.events
            ),
            "</table>",
        ]
        return "\n".join(parts)

    def _shown(self, samples: np.ndarray) -> np.ndarray:
        return samples[: round(SHOWN_SECONDS * self.sample_rate)]

    def _player(self, samples: np.ndarray) -> str:
        content = io.BytesIO()
        soundfile.write(content, self._shown(samples), self.sample_rate, format="FLAC", subtype="PCM_16")
        return f'<audio controls preload="none" src="{_url("audio/flac", content)}"></audio>'


def _url(kind: str, content: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def hear(predictor: Listener, recording: str | os.PathLike[str] | np.ndarray, sample_rate: int | None) -> Hearing:
    """Analyses a recording as `Predictor.hear` does."""
    if isinstance(recording, (str, os.PathLike)):
        samples, name = np.concatenate(list(predictor.read(Path(recording)))), Path(recording).name
    elif sample_rate is None:
        raise ValueError("sample_rate is missing; give it with a waveform, such as hear(waveform, 16000)")
    else:
        samples, name = predictor.heard(recording, sample_rate), "waveform"
    parts: list[np.ndarray] = []
    sink = None if predictor.separator is None else lambda _, sources: parts.append(sources)
    result = predictor.analyse_samples(samples, sink)
    sources: dict[str, np.ndarray] = {}
    if parts:
        every = dict(zip(predictor.source_names, np.concatenate(parts, axis=-1), strict=True))
        sources = {source: every[source] for source in result.kept}
        if REST in sources:  # with the sources of classes that were not heard
            sources[REST] = sources[REST] + sum(every[source] for source in every.keys() - sources.keys())
    return Hearing(
        **vars(result),
        name=name,
        sample_rate=predictor.sample_rate,
        recording=samples,
        sources=sources,
        _predictor=predictor,
    )


def draw_detections(path: Path | None, samples: np.ndarray, result: Result, predictor: Listener, title: str) -> Figure:
    """Plots the beginning of a recording, `samples` `[n]`: mel-spectrogram, frame probabilities and detected events.

    The picture is written to `path` if that is not None.
    """
    from task_aware.plots.separation import plot_separation  # most runs draw nothing, and need no matplotlib

    detector = predictor.detector
    front_end = detector.feature_config
    seconds = len(samples) / front_end.sample_rate
    mel = front_end.mel(torch.from_numpy(samples))
    frames = result.scores[: round(seconds / detector.frame_seconds)]
    return plot_separation(
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
        threshold=predictor.threshold,
        title=title,
    )
