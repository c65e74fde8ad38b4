"""From frame probabilities to events, and from events to scores.

Decoding is that of the DCASE 2020 task 4 baseline; scores are those of sed_eval (Mesaros, Heittola and
Virtanen, "Metrics for polyphonic sound event detection", Applied Sciences 6(6), 2016) with the baseline's
parameters.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from task_aware.data.labels import Event, Events

if TYPE_CHECKING:
    from types import ModuleType


@dataclass(frozen=True)
class Scores:
    """F1 scores, all in [0, 1].

    macro: mean over the classes in `averaged` of their F1, as sed_eval's.
    micro, precision, recall: of all events (or segments) together, whatever their class.
    error_rate: (substitutions + deletions + insertions) / reference; NaN where the reference is empty.
    per_class: F1 of each class in `averaged`, in the order of the labels.
    counts: (reference, detected) events, or active segments, of each class that has any.
    averaged: the classes with reference events: the same for all that is scored on the same files, so that no single
        false alarm can add a class of F1 0 to the mean.
    left_out: the others, whose detections count as false alarms in micro, precision and error rate.
    """

    name: str
    macro: float
    micro: float
    precision: float
    recall: float
    error_rate: float
    per_class: dict[str, float]
    counts: dict[str, tuple[int, int]]
    averaged: tuple[str, ...]
    left_out: tuple[str, ...]

    def table(self) -> str:
        """The scores as text, F1 in percent."""
        width = max(len(label) for label in (*self.averaged, *self.left_out, "macro average"))
        rows = [f"{self.name:<{width}}  {'F1 %':>6}  {'reference':>9}  {'detected':>8}"]
        for label, (reference, detected) in self.counts.items():
            f1 = f"{100 * self.per_class[label]:.2f}" if label in self.per_class else "-"
            rows.append(f"{label:<{width}}  {f1:>6}  {reference:9d}  {detected:8d}")
        reference = sum(count for count, _ in self.counts.values())
        detected = sum(count for _, count in self.counts.values())
        rows.append(f"{'macro average':<{width}}  {100 * self.macro:6.2f}  (of {len(self.averaged)} classes)")
        rows.append(
            f"{'micro average':<{width}}  {100 * self.micro:6.2f}  {reference:9d}  {detected:8d}  "
            f"(precision {100 * self.precision:.2f}, recall {100 * self.recall:.2f}, "
            f"error rate {self.error_rate:.2f})"
        )
        if self.left_out:
            rows.append(f"not averaged (never in the reference): {', '.join(self.left_out)}")
        return "\n".join(rows)


def event_f1(
    reference: Events,
    estimated: Events,
    labels: Sequence[str],
    *,
    t_collar: float = 0.2,
    percentage_of_length: float = 0.2,
) -> Scores:
    """Event-based scores of sed_eval: an event counts if label, onset and offset fit (optimal matching).

    reference: the true events of every file to score; files without events belong here too.
    estimated: the detected events; a file of the reference that is missing here has no detections. Files that
        the reference does not know are an error, because leaving them out would hide mistaken file names.
    t_collar: seconds the onset may be off; the offset may be off by
        max(t_collar, percentage_of_length * length of the reference event).

    Raises ValueError for unknown files or labels, impossible times or an empty reference.
    """
    metric = _event_metric(labels, t_collar, percentage_of_length)
    return _score("event-based", metric, reference, estimated, labels)


def event_counts(
    reference: Events,
    estimated: Events,
    labels: Sequence[str],
    *,
    t_collar: float = 0.2,
    percentage_of_length: float = 0.2,
) -> np.ndarray:
    """What `event_f1` counts in each file: int64 `[files, C, 3]`, (reference, detected, correct) events of each class.

    Files are in the order of `reference`; arguments are those of `event_f1`.
    """
    metric = _event_metric(labels, t_collar, percentage_of_length)
    totals = [np.zeros((len(labels), 3))]
    for file, events in reference.items():
        metric.evaluate(
            _items("reference", file, events, labels),
            _items("estimated", file, estimated.get(file, ()), labels),
        )
        totals.append(np.array([[metric.class_wise[x][key] for key in ("Nref", "Nsys", "Ntp")] for x in labels]))
    return np.diff(totals, axis=0).astype(np.int64)


def segment_f1(reference: Events, estimated: Events, labels: Sequence[str], *, resolution: float = 1.0) -> Scores:
    """Segment-based scores of sed_eval: activity of each class compared in segments of `resolution` seconds.

    Arguments and errors are those of `event_f1`.
    """
    metric = _sed_eval().sound_event.SegmentBasedMetrics(list(labels), time_resolution=float(resolution))
    return _score("segment-based", metric, reference, estimated, labels)


def _event_metric(labels: Sequence[str], t_collar: float, percentage_of_length: float) -> Any:
    """sed_eval's event-based metric."""
    return _sed_eval().sound_event.EventBasedMetrics(
        list(labels), t_collar=float(t_collar), percentage_of_length=float(percentage_of_length)
    )


def _sed_eval() -> ModuleType:
    """sed_eval, imported when first scored with: it takes its time and warns about pkg_resources."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pkg_resources")
            import sed_eval
            import sed_eval.sound_event
    except ImportError as error:
        raise ImportError(
            f"sed_eval does not import ({error}), but the scores need it: "
            "pip install 'sed_eval>=0.2.1' 'setuptools<82'."
        ) from error
    return sed_eval


def _score(name: str, metric: Any, reference: Events, estimated: Events, labels: Sequence[str]) -> Scores:
    if not reference:
        raise ValueError("reference names no file, but at least one is wanted: pass the true events by file name.")
    unknown = [file for file in estimated if file not in reference]
    if unknown:
        raise ValueError(
            f"estimated names {len(unknown)} file(s) that reference lacks, the first is {unknown[0]!r}: "
            "score only files of the reference, under the same names."
        )
    # An attribute because SegmentBasedMetrics of sed_eval 0.2.1 does not take it as an argument.
    metric.empty_system_output_handling = "zero_score"
    for file, events in reference.items():
        metric.evaluate(
            _items("reference", file, events, labels),
            _items("estimated", file, estimated.get(file, ()), labels),
        )
    classes = metric.results_class_wise_metrics()
    counts = {
        label: (round(classes[label]["count"]["Nref"]), round(classes[label]["count"]["Nsys"])) for label in labels
    }
    averaged = tuple(label for label in labels if counts[label][0])
    per_class = {label: _zero_if_nan(classes[label]["f_measure"]["f_measure"]) for label in averaged}
    overall = metric.results_overall_metrics()
    return Scores(
        name=name,
        macro=float(np.mean(list(per_class.values()))) if averaged else 0.0,
        micro=_zero_if_nan(overall["f_measure"]["f_measure"]),
        precision=_zero_if_nan(overall["f_measure"]["precision"]),
        recall=_zero_if_nan(overall["f_measure"]["recall"]),
        error_rate=float(overall["error_rate"]["error_rate"]) if metric.overall["Nref"] else math.nan,
        per_class=per_class,
        counts={label: both for label, both in counts.items() if any(both)},
        averaged=averaged,
        left_out=tuple(label for label in labels if label not in averaged),
    )


def _items(name: str, file: str, events: Sequence[Event], labels: Sequence[str]) -> list[dict[str, Any]]:
    for event in events:
        if event.label not in labels:
            raise ValueError(
                f"{name} has an event {event.label!r} in {file!r}, but the labels are {', '.join(labels)}: "
                "add the label or leave the event out."
            )
        if not 0 <= event.onset <= event.offset < math.inf:
            raise ValueError(
                f"{name} has an event from {event.onset} s to {event.offset} s in {file!r}, "
                "but 0 <= onset <= offset is wanted: correct its times."
            )
    return [{"event_label": event.label, "onset": event.onset, "offset": event.offset} for event in events]


def _zero_if_nan(value: float) -> float:
    return 0.0 if math.isnan(value) else float(value)
