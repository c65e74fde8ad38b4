"""Checks a folder in DESED's layout before training: what it holds, and what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from task_aware.base.errors import DataError, RecordingError
from task_aware.data import sofa
from task_aware.data.audio import audio_header, read_audio
from task_aware.data.classes import classes_of
from task_aware.data.desed import MAX_MISSING, SPLITS, Split, read_split, split_paths
from task_aware.data.labels import listed
from task_aware.data.levels import constant_offset
from task_aware.data.recordings import SILENT_PEAK
from task_aware.data.rirs import RirFiles, list_rirs
from task_aware.data.soundbank import SoundbankFiles, list_soundbank

# Largest share of broken recordings that training skips; scoring needs every clip.
_MAX_BROKEN = 0.1
_SCORED = ("validation", "public")

# Events that end later than this after their clip are reported; times are rounded to milliseconds.
_LATE_SECONDS = 0.001


class Probe(NamedTuple):
    """A recording's header and, if it was decoded, its peak and constant offset; `error` says why it is unusable."""

    seconds: float = 0.0
    sample_rate: int = 0
    channels: int = 0
    peak: float | None = None
    offset: float = 0.0
    error: str = ""


def probe(path: Path, *, decode: bool, channel: int | None = None, response: bool = False) -> Probe:
    """Reads a recording's header; with `decode`, the whole recording. A room impulse `response` has no offset."""
    try:
        in_sofa = response and sofa.is_sofa(path)
        header = sofa.response_header(path) if in_sofa else audio_header(path)
        if not decode:
            return Probe(*header)
        rate = header.sample_rate
        samples = sofa.read_response(path, rate) if in_sofa else read_audio(path, rate, channel=channel)
        offset = 0.0 if response else constant_offset(samples, header.sample_rate)
        return Probe(*header, float(np.abs(samples - np.float32(offset)).max()), offset)
    except RecordingError as error:
        return Probe(error=str(error))


@dataclass
class Report:
    """The result of `verify`.

    Attributes:
        labels: the classes.
        splits: the splits that have a table and audio, without the rows that cannot be used.
        soundbank: the soundbank's recordings; None if there is no soundbank.
        rirs: the room impulse responses; None if there are none.
        probes: the `Probe` of each recording, by its path.
        usable: those of the splits, `soundbank` and `rirs` that training and scoring can use.
        problems: sentences on what prevents training or scoring.
        notes: sentences on what training and scoring tolerate.
    """

    labels: tuple[str, ...] = ()
    splits: dict[str, Split] = field(default_factory=dict)
    soundbank: SoundbankFiles | None = None
    rirs: RirFiles | None = None
    probes: dict[Path, Probe] = field(default_factory=dict)
    usable: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def can_train(self) -> bool:
        """Whether there are no problems and everything that each recipe needs is there."""
        return not self.problems and {"soundbank", "validation"} <= self.usable

    def seconds(self, paths: Iterable[Path]) -> float:
        """Total length of recordings, seconds."""
        return sum(self.probes[path].seconds for path in paths)


def verify(
    root: Path,
    rirs: Path | None = None,
    *,
    labels: Sequence[str] | None = None,
    channel: int | None = None,
    decode: bool = False,
    progress: bool = True,
) -> Report:
    """Checks everything below `root`, which is in DESED's layout, and the room impulse responses.

    Args:
        root: the folder.
        rirs: folder of room impulse responses; by default `root/rirs`, if it exists.
        labels: the classes; by default those of the data.
        channel: the channel of the recordings to read, counted from 0; None reads the mean.
        decode: decode every recording to find broken, silent and non-finite ones, and constant offsets; otherwise only
            read the headers.
        progress: show a progress bar.

    Raises:
        DataError: `root` is not a folder.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected one in DESED's layout, with audio/ and metadata/ in it")
    if labels is None:
        labels = classes_of(root, needed=False)
    report = Report(tuple(labels))
    groups: dict[str, list[Path]] = {}
    for name in SPLITS:
        metadata, folder = split_paths(root, name)
        if metadata.is_file() or folder.is_dir():
            groups |= _list_split(report, root, name, labels)
    try:
        report.soundbank = list_soundbank(root, labels)
        foreground = [path for paths in report.soundbank.foreground.values() for path in paths]
        groups["soundbank"] = [report.soundbank.folder / path for path in (*foreground, *report.soundbank.background)]
    except DataError as error:
        report.problems.append(str(error))
    if rirs is not None or (root / "rirs").is_dir():
        try:
            report.rirs = list_rirs(rirs or root / "rirs")
            paths = [path for room in report.rirs.rooms.values() for path in room]
            groups["rirs"] = [report.rirs.folder / path for path in paths]
        except DataError as error:
            report.problems.append(str(error))
    _probe_all(report, groups, channel, decode, progress)
    for name, paths in groups.items():
        _judge(report, name, paths)
    _check_contents(report)
    return report


def _list_split(report: Report, root: Path, name: str, labels: Sequence[str]) -> dict[str, list[Path]]:
    found: list[str] = []
    try:
        split = read_split(root, name, labels, max_missing=1.0, problems=found)
    except DataError as error:
        report.problems += [*_some(found), str(error)]
        return {}
    report.problems += _some(found)
    report.splits[name] = split
    if not found:
        report.usable.add(name)
    count = len(split.clips) + len(split.missing)
    if split.missing:
        sentence = (
            f"{len(split.missing)} of the {count} clips of {split.metadata} have no audio ({split.missing[0]}, ...)"
        )
        if len(split.missing) > MAX_MISSING * count:
            report.problems.append(f"{sentence}; at most {MAX_MISSING:.0%} may be missing")
            report.usable.discard(name)
        else:
            report.notes.append(f"{sentence}; they are skipped")
    return {name: [clip.path for clip in split.clips]}


def _probe_all(
    report: Report, groups: dict[str, list[Path]], channel: int | None, decode: bool, progress: bool
) -> None:
    tasks = [(path, name == "rirs") for name, paths in groups.items() for path in paths]

    def look(task: tuple[Path, bool]) -> Probe:
        path, response = task
        return probe(path, decode=decode, channel=0 if response else channel, response=response)

    with (
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
        tqdm(total=len(tasks), desc="decode" if decode else "read headers", unit="file", disable=not progress) as bar,
    ):
        found = pool.map(look, tasks)
        for (path, _), result in zip(tasks, found, strict=True):
            report.probes[path] = result
            bar.update()
    sofa.forget()


def _judge(report: Report, name: str, paths: Sequence[Path]) -> None:
    """Reports broken and silent recordings; silent clips are usable, silent events and responses are not."""
    least = {"soundbank": SILENT_PEAK, "rirs": 0.0}.get(name)
    errors: list[str] = []
    silent: list[Path] = []
    for path in paths:
        found = report.probes[path]
        if found.error:
            errors.append(found.error)
        elif found.peak is not None and (found.peak == 0.0 or found.peak < (least or 0.0)):
            if least is None:
                silent.append(path)
            else:
                errors.append(f"{path} is silent; replace or remove it.")
    if silent:
        report.notes.append(f"{len(silent)} of the {len(paths)} clips of {name} are silent (the first: {silent[0]})")
    if biased := [path for path in paths if report.probes[path].offset]:
        most = max(biased, key=lambda path: abs(report.probes[path].offset))
        report.notes.append(
            f"{len(biased)} of the {len(paths)} recordings of {name} have a constant offset, which is taken out "
            f"(the largest: {report.probes[most].offset:.2g} in {most})"
        )
    allowed = 0.0 if name in _SCORED else _MAX_BROKEN
    if len(errors) > allowed * len(paths):
        count = f"{len(errors)} of the {len(paths)} recordings of {name}"
        report.problems += [f"{count} are unusable, but at most {allowed:.0%} may be:", *_some(errors)]
        report.usable.discard(name)
    else:
        report.notes += [f"skipped: {error}" for error in _some(errors)]
        if name in ("soundbank", "rirs"):
            report.usable.add(name)


def _some(sentences: Sequence[str], most: int = 20) -> list[str]:
    """The first sentences, and how many more there are."""
    more = len(sentences) - most
    return [*sentences[:most], *([f"... and {more} more"] if more > 0 else [])]


def _check_contents(report: Report) -> None:
    """Reports labels without recordings, and events outside their clips."""
    bank = report.soundbank
    if bank is not None:
        absent = [label for label, paths in bank.foreground.items() if not paths]
        if len(absent) == len(bank.foreground):
            report.problems.append(
                f"{bank.folder / 'foreground'} has no recordings of any class; training needs at least one"
            )
            report.usable.discard("soundbank")
        elif absent:
            report.notes.append(f"the soundbank has no recordings of {listed(absent)}")
        if bank.unknown:
            report.notes.append(
                f"the soundbank's folders {listed(bank.unknown)} match none of the classes; they are ignored"
            )
        if not bank.background:
            report.notes.append("the soundbank has no backgrounds; mixtures are made without them")
    if report.rirs is None:
        report.notes.append(
            "there are no room impulse responses; mixtures are dry (use --rirs DIR to add reverberation)"
        )
    elif report.rirs.missing:
        report.notes.append(f"{len(report.rirs.missing)} files of rirs.tsv are missing ({report.rirs.missing[0]}, ...)")
    for split in report.splits.values():
        past, outside = [], []
        for clip in split.clips:
            seconds = report.probes[clip.path].seconds
            for event in clip.events or () if seconds else ():
                if event.onset >= seconds:
                    outside.append(f"{event.label} at {event.onset:g} s in {clip.filename} of {seconds:g} s")
                elif event.offset > seconds + _LATE_SECONDS:
                    past.append(event.offset - seconds)
        if past:
            report.notes.append(
                f"{len(past)} events of {split.metadata} end after their clip, by up to {max(past):.3f} s; they are cut"
            )
        if outside:
            report.notes.append(
                f"{len(outside)} events of {split.metadata} begin after the end of their clip and cannot be detected "
                f"(the first: {outside[0]})"
            )
