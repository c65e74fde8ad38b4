"""Prints scores as a table, and writes them to files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from task_aware.annotations.writing import Labelled, write_labels
from task_aware.base.files import replacing
from task_aware.base.types import Format
from task_aware.data.desed import Split, write_events
from task_aware.data.labels import MOST_LISTED
from task_aware.scoring.evaluation import Detections
from task_aware.scoring.metrics import Scores
from task_aware.scoring.systems import DETECTOR_ONLY, SEPARATED, SOURCE_ONLY

#: `psds1` and `psds2` of each system.
PSDS = Mapping[str, Mapping[str, float]]

DISPLAY_NAMES = {
    DETECTOR_ONLY: "detector alone",
    SEPARATED: "with separation",
    SOURCE_ONLY: "without averaging",
}


def summary(scores: Mapping[str, Scores]) -> dict[str, object]:
    """The scores of one system, as in `metrics.json`; None for an F1 of files without any event."""
    event, segment = scores["event"], scores["segment"]
    return {
        "event_f1_macro": _or_none(event, event.macro),
        "event_f1_micro": _or_none(event, event.micro),
        "segment_f1_macro": _or_none(segment, segment.macro),
        "segment_f1_micro": _or_none(segment, segment.micro),
        "event_f1": event.per_class,
        "classes_averaged": list(event.averaged),
        "false_alarms": event.false_alarms,
    }


def _or_none(scores: Scores, f1: float) -> float | None:
    """An F1 that says something: without events in the reference it is 0 whatever was detected."""
    return f1 if scores.averaged else None


def table(results: Mapping[str, Mapping[str, Scores]], psds_of: PSDS | None = None) -> str:
    """Formats a table of all systems: event F1 of each class, averages and PSDS in percent, and false alarms."""
    names = [DISPLAY_NAMES.get(name, name) for name in results]
    classes = sorted({label for scores in results.values() for label in scores["event"].averaged})
    width = max(len(label) for label in (*classes, "segment F1, macro")) + 2
    columns = [max(len(name), 7) for name in names]

    def row(title: str, values: Sequence[str]) -> str:
        cells = "  ".join(f"{value:>{column}}" for value, column in zip(values, columns, strict=True))
        return f"{title:<{width}}{cells}"

    def percent(values: Sequence[float | None]) -> list[str]:
        return ["-" if value is None else f"{100 * value:.1f}" for value in values]

    every = list(results.values())
    rule = "-" * (width + sum(columns) + 2 * (len(columns) - 1))
    lines = [row("event F1 (%)", names), rule]
    if len(classes) > MOST_LISTED:
        lines.append(f"{len(classes):,} classes; metrics.json has each")
    else:
        lines += [row(label, percent([scores["event"].per_class.get(label) for scores in every])) for label in classes]
    lines.append(rule)
    for kind in ("event", "segment"):
        lines.append(
            row(f"{kind} F1, macro", percent([_or_none(scores[kind], scores[kind].macro) for scores in every]))
        )
        lines.append(
            row(f"{kind} F1, micro", percent([_or_none(scores[kind], scores[kind].micro) for scores in every]))
        )
    for key in ("psds1", "psds2"):
        values = [(psds_of or {}).get(name, {}).get(key) for name in results]
        if any(value is not None for value in values):
            lines.append(row(f"{key[:-1].upper()} {key[-1]}", percent(values)))
    lines.append(row("false alarms", [str(scores["event"].false_alarms) for scores in every]))
    return "\n".join(lines)


def write_detections(out: Path, detections: Detections) -> None:
    """Writes the detected events of each system as a table in DESED's format."""
    out.mkdir(parents=True, exist_ok=True)
    for name, events in detections.items():
        write_events(out / f"{name}.tsv", events)


def write_split_labels(
    folder: Path, wanted: Format, split: Split, detections: Detections, seconds: Mapping[str, float], f_max: float
) -> None:
    """Writes the true events of each clip, and beside them those that each system detected, for annotation programs.

    Files are named as the clips, without their suffixes where that leaves the names different.
    """
    stems = Counter(Path(name).with_suffix("").as_posix() for name in seconds)
    for name, reference in split.reference.items():
        stem = Path(name).with_suffix("").as_posix()
        kinds = {"reference": reference, **{system: events[name] for system, events in detections.items()}}
        path = folder / (stem if stems[stem] == 1 else name)
        write_labels(path, wanted, Labelled(name, seconds[name], f_max, kinds))


def write_results(
    out: Path,
    results: Mapping[str, Mapping[str, Scores]],
    detections: Detections,
    psds_of: PSDS | None = None,
    /,
    **more: object,
) -> None:
    """Writes `metrics.json`, and the detected events of each system."""
    write_detections(out, detections)
    content = {name: {**summary(scores), **(psds_of or {}).get(name, {})} for name, scores in results.items()} | more
    with replacing(out / "metrics.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
