"""The polyphonic sound detection score (PSDS) over all thresholds, computed by sed_scores_eval (extra `psds`).

Bilen et al., "A Framework for the Robust Evaluation of Sound Event Detection", ICASSP 2020; computed as Ebbers et al.,
"Threshold-Independent Evaluation of Sound Event Detection Scores", ICASSP 2022, without a grid of thresholds.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.ndimage import median_filter

from task_aware.data.labels import Event, Events
from task_aware.models.decoding import check_probabilities, frame_edges
from task_aware.scoring.metrics import check_events

#: The two scenarios of DCASE 2021 and 2022 task 4: the first rewards exact times, the second the right classes.
#: Without a weight for cross-triggers, sed_scores_eval takes no criterion for them.
SCENARIOS: dict[str, dict[str, float]] = {
    "psds1": {"dtc_threshold": 0.7, "gtc_threshold": 0.7, "alpha_ct": 0.0, "alpha_st": 1.0, "max_efpr": 100.0},
    "psds2": {
        "dtc_threshold": 0.1,
        "gtc_threshold": 0.1,
        "cttc_threshold": 0.3,
        "alpha_ct": 0.5,
        "alpha_st": 1.0,
        "max_efpr": 100.0,
    },
}


def why_no_psds() -> str | None:
    """Why PSDS cannot be computed, and what to do about it; None if it can."""
    try:
        importlib.metadata.version("sed_scores_eval")
        pandas = importlib.metadata.version("pandas")
    except importlib.metadata.PackageNotFoundError as error:
        return f"PSDS is left out: {error.name} is not installed; run `pip install '.[psds]'` in the checkout"
    if int(pandas.partition(".")[0]) >= 3:
        return f"PSDS is left out: sed_scores_eval does not work with pandas {pandas}; run `pip install 'pandas<3'`"
    return None


def psds(
    reference: Events,
    scores: Mapping[str, np.ndarray],
    seconds: Mapping[str, float],
    labels: Sequence[str],
    frame_seconds: float,
    *,
    median_frames: int = 7,
    scenarios: Sequence[str] = tuple(SCENARIOS),
) -> dict[str, float]:
    """Computes `psds1` and `psds2`, in [0, 1], over the labels that have reference events.

    The scores are median-filtered first, so that the events at each threshold are those of `decode`. Reference events
    of one class that overlap or touch count as one. Where a single class has events, cross-triggers cost nothing.

    Args:
        reference: the true events of every file to score.
        scores: frame probabilities `[T', C]` of the same files, one column per label.
        seconds: length of each file, where its last frame ends.
        labels: the C classes.
        frame_seconds: length of a frame in seconds.
        median_frames: length of the median filter in frames; 1 switches it off.
        scenarios: which of the two to compute.

    Raises:
        ImportError: sed_scores_eval is not installed, or pandas is too new for it.
        ValueError: the files differ, the reference has no events, labels or times that are none, or scores have another
            shape or hold NaN.
    """
    if missing := why_no_psds():
        raise ImportError(missing)
    if not reference.keys() == scores.keys() == seconds.keys():
        raise ValueError("reference, scores and seconds name different files; give all three for the same files")
    for file, events in reference.items():
        check_events("reference", file, events, labels)
    columns = [k for k, label in enumerate(labels) if any(label == e.label for of in reference.values() for e in of)]
    if not columns:
        raise ValueError("the reference has no event of any label, but PSDS needs at least one")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pkg_resources")
        from sed_scores_eval import intersection_based
        from sed_scores_eval.base_modules.scores import create_score_dataframe
    names = [f"class {k}" for k in columns]  # any label could be a column of sed_scores_eval's own, such as "onset"
    name_of = dict(zip((labels[k] for k in columns), names, strict=True))
    tables = {}
    for file, frame in scores.items():
        check_probabilities(frame, labels)
        edges = frame_edges(len(frame), frame_seconds, seconds[file])
        filtered = median_filter(frame, size=(median_frames, 1), mode="reflect")[: len(edges) - 1, columns]
        tables[file] = create_score_dataframe(filtered, edges, names)
    truth = {file: _merge(events, name_of) for file, events in reference.items()}
    found = {}
    for scenario in scenarios:
        parameters = dict(SCENARIOS[scenario])
        if len(columns) == 1:  # sed_scores_eval fails in averaging over no other class
            parameters.pop("cttc_threshold", None)
            parameters["alpha_ct"] = 0.0
        found[scenario] = float(intersection_based.psds(tables, truth, dict(seconds), **parameters)[0])
    return found


def _merge(events: Sequence[Event], name_of: Mapping[str, str]) -> list[tuple[float, float, str]]:
    """Events as (onset, offset, name), with events of one class joined that overlap or touch."""
    merged: list[tuple[float, float, str]] = []
    for event in sorted(events, key=lambda event: (event.label, event.onset)):
        name = name_of[event.label]
        if merged and merged[-1][2] == name and event.onset <= merged[-1][1]:
            onset, offset, _ = merged.pop()
            merged.append((onset, max(offset, event.offset), name))
        else:
            merged.append((event.onset, event.offset, name))
    return merged
