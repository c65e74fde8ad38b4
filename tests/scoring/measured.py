"""Metric inputs whose values were measured with the reference implementations; not part of the repository."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from task_aware.data.labels import Event

FIXTURES = Path(__file__).parents[2] / ".." / "shared" / "metrics"


needs_fixtures = pytest.mark.skipif(
    not (FIXTURES / "expected.json").is_file(), reason="the measured values of shared/metrics are not here"
)


def read_tsv(path: Path) -> dict[str, list[Event]]:
    events: dict[str, list[Event]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            of_file = events.setdefault(row["filename"], [])
            if row["event_label"]:
                of_file.append(Event(float(row["onset"]), float(row["offset"]), row["event_label"]))
    return events


def read_list(path: Path) -> dict[str, list[Event]]:
    """sed_eval's lists: [filename, [scene,]] onset, offset, label; a file name alone has no events."""
    events: dict[str, list[Event]] = {}
    for line in path.read_text().splitlines():
        fields = [field.strip() for field in line.split("\t")]
        name = fields[0] if len(fields) in (1, 4, 5) and fields[0] else path.parent.name
        of_file = events.setdefault(name, [])
        if len(fields) >= 3:
            of_file.append(Event(float(fields[-3]), float(fields[-2]), fields[-1]))
    return events
