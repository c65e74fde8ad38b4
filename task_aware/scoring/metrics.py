"""Event- and segment-based F1, as sed_eval computes them, with the parameters of the DCASE 2020 task 4 baseline.

sed_eval: Mesaros, Heittola and Virtanen, "Metrics for polyphonic sound event detection", Applied Sciences 6(6), 2016.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from task_aware.data.labels import Event, Events

if TYPE_CHECKING:
    from types import ModuleType

#: Said of segments whose borders are not exact.
BORDERS = (
    "segments of {:g} s: an event whose borders should be theirs may count one segment more, as sed_eval rounds; "
    "0.5 s or 0.125 s are exact"
)


@dataclass(frozen=True)
class Scores:
    """F1 scores, all in [0, 1].

    macro: mean F1 over the classes in `averaged`, as in sed_eval.
    micro, precision, recall: over the events (or segments) of all classes together.
    error_rate: (substitutions + deletions + insertions) / reference; NaN if the reference is empty.
    per_class: F1 of each class in `averaged`, in the order of the labels.
    counts: (reference, detected) events, or active segments, of each class that has any.
    false_alarms: detected events (or segments) of all classes without a counterpart in the reference.
    averaged: the classes with reference events. They are the same for all systems scored on the same files, so that a
        single false alarm cannot add a class with F1 0 to the mean.
    left_out: the other classes. Their detections count as false alarms in micro, precision and error rate.
    note: what to know about these scores; `table` ends with it.
    """

    name: str
    macro: float
    micro: float
    precision: float
    recall: float
    error_rate: float
    per_class: dict[str, float]
    counts: dict[str, tuple[int, int]]
    false_alarms: int
    averaged: tuple[str, ...]
    left_out: tuple[str, ...]
    note: str = ""

    def table(self) -> str:
        """Formats the scores as text, F1 in percent."""
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
        if self.note:
            rows.append(self.note)
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
    """Event-based scores of sed_eval: an event is correct if its label, onset and offset match (optimal matching).

    reference: the true events of every file to score, including files without events.
    estimated: the detected events. A file that is missing here has no detections; a file that is missing in the
        reference is an error, because ignoring it would hide wrong file names.
    t_collar: tolerance of the onset in seconds; that of the offset is
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
    """The counts behind `event_f1`: (reference, detected, correct) events per file and class, int64 `[files, C, 3]`.

    Files are in the order of `reference`; arguments are those of `event_f1`.
    """
    metric = _event_metric(labels, t_collar, percentage_of_length)
    totals = [np.zeros((len(labels), 3))]
    for file, events in reference.items():
        metric.evaluate(
            _items("reference", file, events, labels),
            _items("estimated", file, estimated.get(file, ()), labels),
        )
        totals.append(
            np.array([[metric.class_wise[_named(x)][key] for key in ("Nref", "Nsys", "Ntp")] for x in labels])
        )
    return np.diff(totals, axis=0).astype(np.int64)


def segment_f1(reference: Events, estimated: Events, labels: Sequence[str], *, resolution: float = 1.0) -> Scores:
    """Segment-based scores of sed_eval: compares the activity of each class in segments of `resolution` seconds.

    An event is active in all segments that it touches. Where its borders should meet those of segments, sed_eval rounds
    floating-point quotients, so with a resolution such as 0.1 s, which has no exact binary form, some events (0.3 s to
    0.4 s) count one segment more than they fill. Whole seconds, halves, quarters, ... are exact.

    Arguments and errors are those of `event_f1`.
    """
    metric = _sed_eval().sound_event.SegmentBasedMetrics(list(map(_named, labels)), time_resolution=float(resolution))
    scores = _score("segment-based", metric, reference, estimated, labels)
    return scores if (1024 * float(resolution)).is_integer() else replace(scores, note=BORDERS.format(resolution))


def _event_metric(labels: Sequence[str], t_collar: float, percentage_of_length: float) -> Any:
    """sed_eval's event-based metric."""
    return _sed_eval().sound_event.EventBasedMetrics(
        list(map(_named, labels)), t_collar=float(t_collar), percentage_of_length=float(percentage_of_length)
    )


def _sed_eval() -> ModuleType:
    """Imports sed_eval on first use, because that is slow and warns about pkg_resources."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pkg_resources")
            import sed_eval
            import sed_eval.sound_event
    except ImportError as error:
        raise ImportError(
            f"sed_eval, which computes the scores, cannot be imported ({error}); "
            "run `pip install 'sed_eval>=0.2.1' 'setuptools<82'`"
        ) from error
    return sed_eval


def _score(name: str, metric: Any, reference: Events, estimated: Events, labels: Sequence[str]) -> Scores:
    if not reference:
        raise ValueError("reference is empty; give the true events of at least one file")
    unknown = [file for file in estimated if file not in reference]
    if unknown:
        raise ValueError(
            f"estimated has {len(unknown)} file(s) that are not in reference, such as {unknown[0]!r}; "
            "score only files of the reference, under the same names"
        )
    # Set as an attribute, because sed_eval 0.2.1's SegmentBasedMetrics does not take it as an argument.
    metric.empty_system_output_handling = "zero_score"
    for file, events in reference.items():
        metric.evaluate(
            _items("reference", file, events, labels),
            _items("estimated", file, estimated.get(file, ()), labels),
        )
    found = metric.results_class_wise_metrics()
    classes = {label: found[_named(label)] for label in labels}
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
        false_alarms=round(sum(metric.class_wise[_named(label)]["Nfp"] for label in labels)),
        averaged=averaged,
        left_out=tuple(label for label in labels if label not in averaged),
    )


def check_events(name: str, file: str, events: Sequence[Event], labels: Sequence[str]) -> None:
    """Raises ValueError, which names `name` and the file, for an unknown label or impossible times."""
    for event in events:
        if event.label not in labels:
            raise ValueError(
                f"{name} has an event {event.label!r} in {file!r}, but the labels are {', '.join(labels)}; "
                "add the label, or leave out the event"
            )
        if not 0 <= event.onset <= event.offset < math.inf:
            raise ValueError(
                f"{name} has an event from {event.onset} s to {event.offset} s in {file!r}, "
                "but 0 <= onset <= offset is required; correct its times"
            )


def _items(name: str, file: str, events: Sequence[Event], labels: Sequence[str]) -> list[dict[str, Any]]:
    check_events(name, file, events, labels)
    return [{"event_label": _named(event.label), "onset": event.onset, "offset": event.offset} for event in events]


def _named(label: str) -> str:
    """A class as sed_eval is told it: it takes a label `none`, in any case, for no label."""
    return f"class {label}"


def _zero_if_nan(value: float) -> float:
    return 0.0 if math.isnan(value) else float(value)
