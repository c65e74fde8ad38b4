"""Writes events into files that annotation programs open: Audacity, Raven, Praat (TextGrid) and JAMS.

A recording may have events of several kinds, such as the true and the detected ones. TextGrid and JAMS hold all of them
in one file; Audacity and Raven open a file for each, `NAME.KIND.txt`. `task_aware.importing` reads them all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from task_aware.annotations.libraries import library
from task_aware.base.files import replacing
from task_aware.base.types import Format
from task_aware.base.version import __version__
from task_aware.data.labels import Event, written_times

#: What the name of a file of each format ends in.
SUFFIXES: dict[Format, str] = {
    "audacity": ".txt",
    "raven": ".selections.txt",
    "textgrid": ".TextGrid",
    "jams": ".jams",
}

#: Raven's own columns; the label is in another one.
RAVEN = ("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)")

#: The column that Raven suggests for labels.
RAVEN_LABEL = "Annotation"


@dataclass(frozen=True)
class Labelled:
    """The events of one recording.

    Attributes:
        name: the recording, as the files name it.
        seconds: its length.
        f_max: the highest frequency that was heard, Hz; Raven's selections reach up to it.
        kinds: the events of each kind; the only one may have an empty name.
    """

    name: str
    seconds: float
    f_max: float
    kinds: Mapping[str, Sequence[Event]]


def check_format(wanted: Format | None) -> None:
    """Raises TaskAwareError if the library that writes a format is not installed."""
    if wanted is not None and wanted in _LIBRARIES:
        library(_LIBRARIES[wanted])


def label_paths(stem: Path, wanted: Format, kinds: Sequence[str]) -> list[Path]:
    """The files that `write_labels` writes; each is `stem` with something added."""
    several = wanted in ("audacity", "raven")
    names = [f".{kind}" if kind else "" for kind in kinds] if several else [""]
    return [stem.with_name(f"{stem.name}{name}{SUFFIXES[wanted]}") for name in names]


def write_labels(stem: Path, wanted: Format, labelled: Labelled) -> None:
    """Writes the events of a recording into the files of `label_paths`, each as a whole or not at all.

    Times are rounded to milliseconds; an event lasts at least one.

    Raises:
        TaskAwareError: the library that writes the format is not installed.
        OutputError: a file cannot be written.
    """
    paths = label_paths(stem, wanted, list(labelled.kinds))
    if wanted in _TEXTS:
        texts = [_TEXTS[wanted](labelled, events) for events in labelled.kinds.values()]
    else:
        texts = [_WHOLE[wanted](labelled)]
    for path, text in zip(paths, texts, strict=True):
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)


def _one_line(text: str) -> str:
    """A name without tabs and line breaks, which end fields and lines in files that know no quotes."""
    return " ".join(text.split())


def _times(event: Event) -> tuple[float, float]:
    onset, offset = written_times(event)
    return float(onset), float(offset)


def _audacity(labelled: Labelled, events: Sequence[Event]) -> str:
    lines = ("\t".join([*written_times(event), _one_line(event.label)]) for event in events)
    return "".join(f"{line}\n" for line in lines)


def _raven(labelled: Labelled, events: Sequence[Event]) -> str:
    rows = [(*RAVEN, "Begin File", RAVEN_LABEL)]
    for number, event in enumerate(events, 1):
        where = (str(number), "Spectrogram 1", "1", *written_times(event), "0.0", f"{labelled.f_max:.1f}")
        rows.append((*where, _one_line(Path(labelled.name).name), _one_line(event.label)))
    return "".join("\t".join(row) + "\n" for row in rows)


def _textgrid(labelled: Labelled) -> str:
    """A tier for each class of each kind, and further ones where events of one class overlap, as intervals cannot."""
    end = max([labelled.seconds, *(_times(event)[1] for events in labelled.kinds.values() for event in events)])
    grid = library("pympi").Praat.TextGrid(xmin=0.0, xmax=end)
    for kind, events in labelled.kinds.items():
        tiers: list[tuple[str, Any]] = []
        for event in sorted(events, key=lambda event: (event.label, event.onset)):
            onset, offset = _times(event)
            # events come by their onsets, so that only the last one of a tier can overlap
            free = (tier for label, tier in tiers if label == event.label and tier.intervals[-1][1] <= onset)
            tier = next(free, None)
            if tier is None:
                title = f"{kind} {event.label}".strip().replace('"', '""')
                tier = grid.add_tier(_one_line(title))
                tiers.append((event.label, tier))
            tier.add_interval(onset, offset, _one_line(event.label), check=False)
        if not events:
            grid.add_tier(kind or "events")
    return _written(grid)


def _written(grid: Any) -> str:
    """The text of a TextGrid, which pympi writes to a file only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "grid")
        grid.to_file(path)
        return path.read_text(encoding="utf-8")


def _jams(labelled: Labelled) -> str:
    jams = library("jams")
    content = jams.JAMS()
    content.file_metadata.title = labelled.name
    content.file_metadata.duration = labelled.seconds
    for kind, events in labelled.kinds.items():
        annotation = jams.Annotation("segment_open", time=0, duration=labelled.seconds)
        annotation.annotation_metadata.data_source = kind
        annotation.annotation_metadata.annotation_tools = f"task_aware {__version__}"
        for event in events:
            onset, offset = _times(event)
            annotation.append(time=onset, duration=round(offset - onset, 3), value=event.label)
        content.annotations.append(annotation)
    return str(content.dumps(indent=2)) + "\n"


_TEXTS: dict[Format, Callable[[Labelled, Sequence[Event]], str]] = {"audacity": _audacity, "raven": _raven}
_WHOLE: dict[Format, Callable[[Labelled], str]] = {"textgrid": _textgrid, "jams": _jams}
_LIBRARIES: dict[Format, str] = {"textgrid": "pympi", "jams": "jams"}
