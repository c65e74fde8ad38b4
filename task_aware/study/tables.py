"""The tables of an ablation: scores over seeds, confidence intervals, parameters and speed."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from task_aware.base.files import replacing
from task_aware.data.desed import Clip, Split, read_events
from task_aware.models.denoiser import DenoisedDetector
from task_aware.models.opening import detector_of
from task_aware.plots import Bar, plot_ablation
from task_aware.scoring.evaluation import frame_probabilities
from task_aware.scoring.metrics import event_counts
from task_aware.scoring.significance import bootstrap, interval, macro_f1
from task_aware.scoring.systems import SOURCE_ONLY
from task_aware.study.systems import DETECTOR_ALONE, ROWS, TABLES

#: Number of timed repetitions, after one to warm up; their median is reported.
TIMED = 5


@dataclass(frozen=True)
class Result:
    """A row of a table.

    Attributes:
        counts: for each seed, the counts `[clips, C, 3]` of `metrics.event_counts`.
        parameters: number of parameters of all networks of the system.
        real_time_factor: computing time per second of audio, from waveform to frame probabilities.
    """

    counts: list[np.ndarray]
    parameters: int
    real_time_factor: float

    @property
    def scores(self) -> list[float]:
        """Event macro F1 of each seed."""
        return [float(macro_f1(run.sum(0))) for run in self.counts]

    @property
    def mean(self) -> float:
        return float(np.mean(self.scores))

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; NaN for a single one."""
        return spread(self.scores)


def read_counts(folder: Path, system: str, split: Split, labels: Sequence[str]) -> np.ndarray:
    """Counts the events that a finished run detected (`metrics.event_counts`)."""
    return event_counts(split.reference, read_events(folder / f"{system}.tsv", labels), labels)


@torch.no_grad()
def hear(model: nn.Module, system: str, waveform: Tensor) -> Tensor:
    """Frame probabilities `[B, T', C]` for waveforms `[B, N]`; computes no more than this system needs."""
    if isinstance(model, DenoisedDetector) and system == SOURCE_ONLY:
        return model.hear(model.denoise(waveform)).frame
    return frame_probabilities(model, waveform, "auto")[system]


def real_time_factor(model: nn.Module, system: str, clip: Clip, device: torch.device) -> float:
    """Computing time per second of audio, one clip at a time, without reading and decoding."""
    model = model.to(device).eval()
    rate = detector_of(model).feature_config.sample_rate
    waveform = torch.from_numpy(clip.read(rate)).to(device)[None]
    seconds = []
    for _ in range(TIMED + 1):
        start = time.perf_counter()
        hear(model, system, waveform).cpu()  # waits for the device
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:])) / (waveform.shape[1] / rate)


def n_parameters(model: nn.Module) -> int:
    """Number of parameters of all networks of a system."""
    return sum(parameter.numel() for parameter in model.parameters())


class Comparison:
    """Compares the results of several rows.

    Args:
        results: results by row (keys of `systems.ROWS`), including the detector alone.
        resamples: number of draws of the bootstrap over clips.
    """

    def __init__(self, results: Mapping[str, Result], *, resamples: int = 1000) -> None:
        self.results = results
        self.drawn = bootstrap({name: result.counts for name, result in results.items()}, resamples=resamples)

    def interval(self, name: str) -> tuple[float, float]:
        """The 95 % interval of a row's mean F1."""
        return interval(self.drawn[name])

    def difference(self, name: str) -> tuple[float, float, float]:
        """The difference of mean F1 to the detector alone, and its paired 95 % interval."""
        low, high = interval(self.drawn[name] - self.drawn[DETECTOR_ALONE])
        return self.results[name].mean - self.results[DETECTOR_ALONE].mean, low, high

    def markdown(self) -> str:
        """The tables, with the rows that have results."""
        parts = []
        for title, names in TABLES.items():
            shown = [name for name in names if name in self.results]
            if len(shown) > 1:
                parts.append("\n".join([title, "", *aligned([_HEADER, *map(self._cells, shown)])]))
        return "\n\n".join(parts) + "\n"

    def _cells(self, name: str) -> list[str]:
        row, result = ROWS[name], self.results[name]
        return [
            row.title,
            score_cell(result.scores),
            str(len(result.scores)),
            "" if name == DETECTOR_ALONE else change_cell(*self.difference(name)),
            f"{result.parameters / 1e6:.2f} M",
            f"{result.real_time_factor:.4f}",
            "" if row.published is None else f"{row.published:.1f}",
        ]

    def write(self, out: Path, note: str) -> None:
        """Writes `tables.md`, `tables.csv` and `tables.png` to `out`."""
        with replacing(out / "tables.md") as path:
            path.write_text(f"{self.markdown()}\n{note}\n", encoding="utf-8")
        with replacing(out / "tables.csv") as path, path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            writer.writerows(self._record(name) for name in self.results)
        bars = [
            Bar(ROWS[name].title, [100 * x for x in result.scores], _percent(self.interval(name)))
            for name, result in self.results.items()
        ]
        plot_ablation(out / "tables.png", bars, label="event F1, macro (%); line: 95 % interval over clips; dot: seed")

    def _record(self, name: str) -> list[object]:
        result = self.results[name]
        scores = " ".join(f"{score:.6f}" for score in result.scores)
        numbers = (result.mean, result.spread, *self.interval(name), *self.difference(name))
        return [
            name,
            ROWS[name].title,
            *(f"{number:.6f}" for number in numbers),
            result.parameters,
            result.real_time_factor,
            scores,
        ]


_HEADER = [
    "method",
    "event F1, macro (%)",
    "seeds",
    "against the detector alone [95 %]",
    "parameters",
    "real-time factor",
    "paper, on DESED",
]
_COLUMNS = (
    "row", "title", "event_f1_macro", "std", "low", "high", "difference", "difference_low", "difference_high",
    "parameters", "real_time_factor", "event_f1_macro_of_seeds",
)  # fmt: skip


def _percent(values: tuple[float, float]) -> tuple[float, float]:
    return 100 * values[0], 100 * values[1]


def spread(scores: Sequence[float]) -> float:
    """Standard deviation; NaN for a single score."""
    return float(np.std(scores, ddof=1)) if len(scores) > 1 else float("nan")


def score_cell(scores: Sequence[float]) -> str:
    """Mean, and standard deviation if there are several scores, in percent."""
    return f"{100 * np.mean(scores):.1f}" + (f" ± {100 * spread(scores):.1f}" if len(scores) > 1 else "")


def change_cell(change: float, low: float, high: float) -> str:
    """A difference and its interval, in percent."""
    return f"{100 * change:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table with aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        first = f"{row[0]:<{widths[0]}}"
        return "| " + " | ".join([first, *(f"{x:>{w}}" for x, w in zip(row[1:], widths[1:], strict=True))]) + " |"

    rule = "|" + "|".join([f":{'-' * (widths[0] + 1)}", *(f"{'-' * (w + 1)}:" for w in widths[1:])]) + "|"
    return [line(rows[0]), rule, *map(line, rows[1:])]
