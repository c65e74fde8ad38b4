"""Runs and scores separators with detectors that they were not trained through."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from task_aware.base.errors import CheckpointError
from task_aware.data.desed import Split
from task_aware.data.labels import Event
from task_aware.models.detector import Detector
from task_aware.models.listener import heard_by
from task_aware.models.merging import merge_sources
from task_aware.models.system import ClassSeparator, Separator
from task_aware.scoring.evaluation import batches_of, events_of
from task_aware.scoring.metrics import event_counts
from task_aware.scoring.significance import bootstrap, interval, macro_f1
from task_aware.study.tables import aligned, change_cell, score_cell


class System(NamedTuple):
    """A separator (None: the detector alone), one of its runs, and a detector, by their names."""

    separator: str | None
    run: int
    detector: str


def find_separators(place: Path) -> list[Path]:
    """The separators of a system: `place` itself if it is a file, otherwise those of all runs below it."""
    found = [place] if place.is_file() else sorted(place.glob("**/separator.safetensors"))
    if not found:
        raise CheckpointError(f"there is no separator.safetensors in {place}; give a separator, or a folder of runs")
    return found


def hear(detector: Detector, sources: Tensor, alone: Tensor, separator: Separator) -> Tensor:
    """Runs a detector on separated sources and merges its answers: frame probabilities `[B, T', C]`.

    Args:
        detector: the detector, which scales the sources in its own way.
        sources: linear mel `[B, S, F, T]`.
        alone: the detector's frame probabilities for the mixtures, `[B, T', C]`.
        separator: the separator, which says how the detections of the sources are merged.
    """
    frame = detector(heard_by(detector, sources.flatten(0, 1), None)).frame
    plausible = separator.plausible if isinstance(separator, ClassSeparator) else 0.0
    return merge_sources(frame.unflatten(0, sources.shape[:2]), alone, separator.merge, plausible=plausible)


@torch.no_grad()
def count(
    split: Split, detectors: Mapping[str, Detector], separators: Mapping[str, list[Separator]], device: torch.device
) -> dict[System, np.ndarray]:
    """Counts the events of every separator with every detector, and of the detectors alone."""
    first = next(iter(detectors.values()))
    front_end = first.feature_config
    events: dict[System, dict[str, list[Event]]] = defaultdict(dict)
    for clips, waveform in batches_of(split, front_end, device=device):
        mel = front_end.mel(waveform)
        alone = {heard: detector(heard_by(detector, mel, waveform)).frame for heard, detector in detectors.items()}
        frames = {System(None, 0, heard): frame for heard, frame in alone.items()}
        for name, runs in separators.items():
            for run, separator in enumerate(runs):
                sources = separator.separate(mel).mel
                for heard, detector in detectors.items():
                    frames[System(name, run, heard)] = hear(detector, sources, alone[heard], separator)
        seconds = waveform.shape[1] / front_end.sample_rate
        for system, frame in frames.items():
            for clip, probabilities in zip(clips, frame.float().cpu().numpy(), strict=True):
                events[system][clip.filename] = events_of(probabilities, detectors[system.detector], seconds)
    return {system: event_counts(split.reference, found, first.labels) for system, found in events.items()}


def compare(counts: Mapping[System, np.ndarray], resamples: int) -> list[str]:
    """A Markdown table: F1 of each separator with each detector, and the mean change over the detectors."""
    runs: dict[tuple[str | None, str], list[np.ndarray]] = defaultdict(list)
    for system, found in counts.items():
        runs[system.separator, system.detector].append(found)
    scores = {key: [float(macro_f1(run.sum(0))) for run in found] for key, found in runs.items()}
    drawn = bootstrap({str(key): found for key, found in runs.items()}, resamples=resamples)
    detectors = list(dict.fromkeys(detector for _, detector in runs))
    rows = [["event F1, macro (%)", "runs", *detectors, "change, mean over detectors [95 %]"]]
    for name in dict.fromkeys(separator for separator, _ in runs):
        change = ""
        if name is not None:
            pairs = [((name, heard), (None, heard)) for heard in detectors]
            mean = np.mean([np.mean(scores[with_it]) - np.mean(scores[alone]) for with_it, alone in pairs])
            changes = np.mean([drawn[str(with_it)] - drawn[str(alone)] for with_it, alone in pairs], axis=0)
            change = change_cell(float(mean), *interval(changes))
        cells = [score_cell(scores[name, heard]) for heard in detectors]
        rows.append([name or "detector alone", str(len(scores[name, detectors[0]])), *cells, change])
    return aligned(rows)
