"""PSDS: values measured with psds_eval, cases made by hand, and what happens without sed_scores_eval."""

from __future__ import annotations

import csv
import gzip
import json
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest

from task_aware.data.labels import Event
from task_aware.scoring.psds import psds, why_no_psds

from .measured import FIXTURES, needs_fixtures, read_tsv

needs_psds = pytest.mark.skipif(why_no_psds() is not None, reason=why_no_psds() or "")

LABELS = ("Cat", "Dog", "Frying")


def clips(n_frames: int = 100) -> tuple[dict, dict, dict]:
    """Two clips of 10 s with an event each, and scores that are 0.9 there and elsewhere falling noise."""
    reference = {"a": (Event(2.0, 5.0, "Dog"),), "b": (Event(1.0, 4.0, "Cat"),), "c": ()}
    scores = {file: np.full((n_frames, 3), 0.01, dtype=np.float32) for file in reference}
    scores["a"][20:50, 1] = scores["b"][10:40, 0] = 0.9
    return reference, scores, dict.fromkeys(reference, 10.0)


@needs_psds
def test_perfect_scores_are_one_and_absent_ones_zero():
    reference, scores, seconds = clips()
    assert psds(reference, scores, seconds, LABELS, 0.1) == pytest.approx({"psds1": 1.0, "psds2": 1.0})
    silent = {file: np.zeros_like(frame) for file, frame in scores.items()}
    assert psds(reference, silent, seconds, LABELS, 0.1) == {"psds1": 0.0, "psds2": 0.0}


@needs_psds
def test_the_first_scenario_asks_for_times_the_second_does_not():
    reference, scores, seconds = clips()
    scores["a"][35:50, 1] = scores["b"][25:40, 0] = 0.01  # half of each event
    assert psds(reference, scores, seconds, LABELS, 0.1) == pytest.approx({"psds1": 0.0, "psds2": 1.0})


@needs_psds
def test_a_class_that_is_found_in_place_of_another_costs_the_second_scenario_most():
    reference, scores, seconds = clips()
    scores["a"][20:50, 0] = 0.95  # Cat before all else, where there is a Dog
    found = psds(reference, scores, seconds, LABELS, 0.1)
    # Cat's curve rises at 120 false positives in an hour, beyond 100: TPR 0 and 1 leave mean - deviation = 0.
    assert found == {"psds1": 0.0, "psds2": 0.0}


@needs_psds
def test_scores_are_filtered_and_cut_as_events_are():
    reference, scores, seconds = clips(n_frames=101)  # the last frame would begin at the end
    scores["a"][21:50:3, 1] = 0.0  # a third of the event, in gaps that the median filter closes
    assert psds(reference, scores, seconds, LABELS, 0.1)["psds1"] == pytest.approx(1.0)
    assert psds(reference, scores, seconds, LABELS, 0.1, median_frames=1)["psds1"] == 0.0


@needs_psds
def test_overlapping_events_of_one_class_are_one():
    reference, scores, seconds = clips()
    reference["a"] = (Event(3.0, 5.0, "Dog"), Event(2.0, 4.0, "Dog"))
    assert psds(reference, scores, seconds, LABELS, 0.1)["psds1"] == pytest.approx(1.0)


@needs_psds
def test_so_are_events_that_touch():
    reference, scores, seconds = clips()
    reference["a"] = (Event(3.5, 5.0, "Dog"), Event(2.0, 3.5, "Dog"))
    assert psds(reference, scores, seconds, LABELS, 0.1) == pytest.approx({"psds1": 1.0, "psds2": 1.0})


@needs_psds
def test_a_class_alone_has_a_score():
    """Cross-triggers, for which sed_scores_eval looks at other classes, cost nothing: there are none."""
    reference, scores, seconds = clips()
    reference["b"] = ()
    assert psds(reference, scores, seconds, LABELS, 0.1) == pytest.approx({"psds1": 1.0, "psds2": 1.0})
    alone = {file: frame[:, 1:2] for file, frame in scores.items()}
    assert psds(reference, alone, seconds, ("Dog",), 0.1) == pytest.approx({"psds1": 1.0, "psds2": 1.0})


@needs_psds
def test_classes_may_have_any_name():
    reference, scores, seconds = clips()
    names = {"Cat": "onset", "Dog": "a\\b"}
    renamed = {file: [Event(e.onset, e.offset, names[e.label]) for e in of] for file, of in reference.items()}
    expected = {"psds1": 1.0, "psds2": 1.0}
    assert psds(renamed, scores, seconds, ("onset", "a\\b", "offset"), 0.1) == pytest.approx(expected)


@needs_psds
def test_mistakes_are_one_sentence():
    reference, scores, seconds = clips()
    with pytest.raises(ValueError, match="name different files"):
        psds(reference, {"a": scores["a"]}, seconds, LABELS, 0.1)
    with pytest.raises(ValueError, match="no event of any label"):
        psds({"c": ()}, {"c": scores["c"]}, {"c": 10.0}, LABELS, 0.1)
    with pytest.raises(ValueError, match="frame holds NaN instead of probabilities"):
        psds(reference, {**scores, "b": np.full((100, 3), np.nan)}, seconds, LABELS, 0.1)
    with pytest.raises(ValueError, match=r"frame has the shape \[100, 2\], expected \[T', 3\]"):
        psds(reference, {**scores, "b": np.zeros((100, 2))}, seconds, LABELS, 0.1)
    with pytest.raises(ValueError, match="reference has an event 'Bird' in 'b'"):
        psds({**reference, "b": (Event(1.0, 2.0, "Bird"),)}, scores, seconds, LABELS, 0.1)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    def absent(name: str):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("task_aware.scoring.psds.importlib.metadata.version", absent)
    with pytest.raises(ImportError, match=r"pip install '\.\[psds\]'"):
        psds(*clips(), LABELS, 0.1)
    monkeypatch.setattr("task_aware.scoring.psds.importlib.metadata.version", lambda _: "3.1.1")
    with pytest.raises(ImportError, match="does not work with pandas 3.1.1"):
        psds(*clips(), LABELS, 0.1)


@needs_psds
@needs_fixtures
def test_desed_student():
    """psds_eval's values for 50 thresholds: as scores, the highest threshold at which each frame is active.

    The fourth digit is what both agree to: psds_eval leaves out what lies exactly on a tolerance but for rounding, and
    lets detections reach past the end of short clips.
    """
    student = json.loads((FIXTURES / "expected.json").read_text())["desed_student"]
    classes = student["classes"]
    reference = read_tsv(FIXTURES / "desed" / "validation.tsv")
    with (FIXTURES / "desed" / "validation_durations.tsv").open(newline="") as file:
        seconds = {row["filename"]: float(row["duration"]) for row in csv.DictReader(file, delimiter="\t")}
    frame_seconds = 0.064
    scores = {name: np.zeros((156, len(classes)), dtype=np.float32) for name in reference}
    with gzip.open(FIXTURES / "desed" / "student_operating_points.tsv.gz", "rt", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):  # by rising threshold
            first, last = (round(float(row[name]) / frame_seconds) for name in ("onset", "offset"))
            scores[row["filename"]][first:last, classes.index(row["event_label"])] = float(row["threshold"])
    found = psds(reference, scores, seconds, classes, frame_seconds, median_frames=1)
    for name, value in found.items():
        assert value == pytest.approx(student["psds_eval"][name]["value"], abs=5e-5), name
