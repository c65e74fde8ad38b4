"""Reads the files of annotation programs through their libraries: Praat TextGrid, ELAN, JAMS, Label Studio."""

from __future__ import annotations

import functools
import json
import urllib.parse
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from task_aware.annotations.libraries import library
from task_aware.base.errors import DataError, TaskAwareError
from task_aware.importing.items import Problems, Row
from task_aware.importing.tables import read_text

Reader = Callable[[Path, str, Problems], Iterable[Row]]


def _by_a_library(read: Reader) -> Reader:
    """Raises DataError for whatever a library raises for a broken file, or returns of one that cannot be used."""

    @functools.wraps(read)
    def reader(path: Path, audio: str, problems: Problems) -> list[Row]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return list(read(path, audio, problems))
        except TaskAwareError:
            raise
        except Exception as error:
            raise DataError(f"{path} cannot be read ({type(error).__name__}: {error}); export it again") from error

    return reader


@_by_a_library
def read_textgrid(path: Path, audio: str, problems: Problems) -> Iterator[Row]:
    """The labelled intervals of all tiers of a Praat TextGrid; empty ones are silence, and points have no length."""
    crowsetta = library("crowsetta")
    grid = crowsetta.formats.seq.TextGrid.from_file(path)
    for tier in grid.tiers:
        for interval in getattr(tier, "intervals", ()):
            if label := interval.text.strip().replace('""', '"'):  # Praat doubles quotes; crowsetta leaves them so
                yield Row(str(path), audio, (label,), (interval.xmin, interval.xmax))
        for point in getattr(tier, "points", ()):
            problems.add(path, f"the point {point.mark!r} at {point.number:g} s has no length; make it an interval")


@_by_a_library
def read_elan(path: Path, audio: str, problems: Problems) -> Iterator[Row]:
    """The annotations of all tiers of an ELAN file that have times.

    Borders without a time lie evenly between their neighbours, as ELAN shows them. Times count from where the recording
    begins, which may be skipped in part (TIME_ORIGIN).
    """
    elan = library("pympi").Elan.Eaf(str(path))
    seconds = _interpolated(list(elan.timeslots.items()))
    media = sorted(elan.media_descriptors, key=lambda each: Path(each.get("MEDIA_URL", "")).name != Path(audio).name)
    origin = float(media[0].get("TIME_ORIGIN", 0)) / 1000 if media else 0.0  # of this recording, not of a video
    for name, (aligned, dependent, *_) in elan.tiers.items():
        for first, last, text, *_ in aligned.values():
            if not text.strip():
                continue
            if first not in seconds or last not in seconds:
                problems.add(path, f"the annotation {text!r} of the tier {name!r} has no times; align it")
                continue
            yield Row(str(path), audio, (text.strip(),), (seconds[first] + origin, seconds[last] + origin))
        if dependent:
            problems.add(path, f"the {len(dependent)} annotations of the tier {name!r} have no times of their own")


def _interpolated(slots: list[tuple[str, int | None]]) -> dict[str, float]:
    """Times in seconds of ELAN's time slots, which are in order; those before the first known one have none."""
    known = [k for k, (_, value) in enumerate(slots) if value is not None]
    found = {}
    for left, right in zip(known, [*known[1:], None], strict=True):
        begin = float(slots[left][1] or 0) / 1000
        found[slots[left][0]] = begin
        if right is not None:
            step = (float(slots[right][1] or 0) / 1000 - begin) / (right - left)
            found |= {slots[k][0]: begin + step * (k - left) for k in range(left + 1, right)}
    return found


@_by_a_library
def read_jams(path: Path, audio: str, problems: Problems) -> Iterator[Row]:
    """The events of a JAMS file: Scaper's foreground, and tags and segments with times."""
    content = library("jams").load(str(path), validate=False)
    for annotation in content.annotations:
        kind = annotation.namespace
        if kind != "scaper" and not kind.startswith(("tag_", "segment_", "sound_event", "multi_segment")):
            problems.add(path, f"the annotation of the kind {kind!r} holds no sound events; it was left out")
            continue
        for each in annotation:
            value = each.value if isinstance(each.value, dict) else {"label": each.value}
            if value.get("role") == "background":
                continue
            label = str(value.get("label") or "").strip()
            yield Row(str(path), audio, (label,) if label else (), (each.time, each.time + each.duration))


def read_label_studio(path: Path, problems: Problems) -> Iterator[Row]:
    """The regions of a Label Studio export (JSON), of the annotator who is the ground truth, or else of the first."""
    try:
        tasks = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); export it again") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"{path} is no export of Label Studio; export the project as JSON")
    for number, task in enumerate(tasks, 1):
        where = f"{path} (task {task.get('id', number)})"
        if "annotations" not in task or not isinstance(task.get("data"), dict):
            raise DataError(f"{where} has no annotations and data, as JSON_MIN has none; export the project as JSON")
        try:
            yield from list(_of_task(where, task, problems))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problems.add(where, f"the task is not as Label Studio exports it ({type(error).__name__}: {error})")


def _of_task(where: str, task: dict[str, Any], problems: Problems) -> Iterator[Row]:
    sounds = [text for text in task["data"].values() if isinstance(text, str)]
    audio = next((text for name, text in task["data"].items() if name == "audio"), sounds[0] if sounds else "")
    name = Path(urllib.parse.unquote(urllib.parse.urlparse(str(audio)).query.partition("d=")[2] or
                                     urllib.parse.urlparse(str(audio)).path)).name  # fmt: skip
    given = [each for each in task["annotations"] if not each.get("was_cancelled")]
    chosen = next((each for each in given if each.get("ground_truth")), given[0] if given else None)
    if len(given) > 1:
        problems.add(where, f"{len(given)} annotators labelled {name}; one of them was taken")
    if chosen is None:
        problems.add(where, f"{name} has no annotation; label it, or leave it out of the export")
        return
    for region in chosen.get("result", ()):
        value = region.get("value", {})
        if "start" not in value or "end" not in value:
            continue  # an answer to a question about the clip
        labels = value.get("labels") or value.get("timeserieslabels") or value.get("choices") or ()
        yield Row(where, name, tuple(map(str, labels)), (float(value["start"]), float(value["end"])))
