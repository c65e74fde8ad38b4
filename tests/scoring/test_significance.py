"""Counts of each clip and the bootstrap over them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from task_aware.data.labels import DESED_CLASSES, Event
from task_aware.scoring.metrics import event_counts, event_f1
from task_aware.scoring.significance import bootstrap, interval, macro_f1


def soundscapes(n_clips: int) -> tuple[dict[str, list[Event]], dict[str, list[Event]]]:
    """Events, and what a detector of middling skill might hear: shifted, missed and made up ones."""
    generator = np.random.default_rng(0)
    reference: dict[str, list[Event]] = {}
    estimated: dict[str, list[Event]] = {}
    labels = DESED_CLASSES[:8]
    for clip in range(n_clips):
        name = f"{clip}.wav"
        onsets = generator.uniform(0, 8, size=generator.integers(0, 5))
        reference[name] = [Event(x, x + generator.uniform(0.2, 2), str(generator.choice(labels))) for x in onsets]
        heard = [event for event in reference[name] if generator.uniform() < 0.7]
        shifts = np.abs(generator.normal(0, 0.15, size=len(heard)))
        estimated[name] = [
            Event(event.onset + shift, event.offset + shift, event.label)
            for event, shift in zip(heard, shifts, strict=True)
        ]
        if generator.uniform() < 0.3:
            estimated[name].append(Event(1.0, 2.0, DESED_CLASSES[8]))  # never in the reference
    del estimated["0.wav"]
    return reference, estimated


def test_counts_give_the_f1_of_sed_eval():
    reference, estimated = soundscapes(40)
    counts = event_counts(reference, estimated, DESED_CLASSES)
    assert counts.shape == (40, 10, 3)
    scores = event_f1(reference, estimated, DESED_CLASSES)
    totals = counts.sum(0)
    for label, f1 in scores.per_class.items():
        n_reference, n_detected, n_correct = totals[DESED_CLASSES.index(label)]
        assert 2 * n_correct / (n_reference + n_detected) == pytest.approx(f1, abs=1e-12)
        assert scores.counts[label] == (n_reference, n_detected)
    assert totals[8, 1] > 0 and DESED_CLASSES[8] in scores.left_out  # false alarms of a class that is never there
    assert 0.2 < scores.macro < 0.9
    assert macro_f1(totals) == pytest.approx(scores.macro, abs=1e-12)
    assert counts[0, :, 0].sum() == len(reference["0.wav"]) and counts[0, :, 1].sum() == 0


def test_macro_f1_leaves_out_classes_without_reference():
    counts = np.array([[4, 4, 2], [0, 0, 0], [0, 3, 0], [1, 0, 0]])
    assert macro_f1(counts) == pytest.approx((0.5 + 0.0) / 2)
    assert macro_f1(np.zeros((10, 3))) == 0


def test_bootstrap_of_one_class_has_the_width_that_theory_gives():
    # one event in each of 400 clips, found in 240 with no false alarm beside: F1 is the share found
    found = np.arange(400) < 240
    counts = np.stack([np.ones(400), np.ones(400), found], axis=-1)[:, None].astype(np.int64)
    drawn = bootstrap({"system": [counts]}, resamples=4000)["system"]
    assert drawn.shape == (4000,)
    assert drawn.mean() == pytest.approx(0.6, abs=0.003)
    assert drawn.std() == pytest.approx(math.sqrt(0.6 * 0.4 / 400), rel=0.05)
    low, high = interval(drawn)
    assert (low, high) == pytest.approx((0.552, 0.648), abs=0.006)


def test_differences_are_paired():
    generator = np.random.default_rng(1)
    base = np.stack([np.ones(200), np.ones(200), generator.uniform(size=200) < 0.5], axis=-1)[:, None].astype(np.int64)
    better = base.copy()
    better[np.flatnonzero(base[:, 0, 2] == 0)[:10], 0, 2] = 1  # the same but for ten clips
    drawn = bootstrap({"base": [base], "better": [better, better], "same": [base]})
    assert (drawn["base"] == drawn["same"]).all()
    low, high = interval(drawn["better"] - drawn["base"])
    assert 0 < low < 0.05 < high < 0.1  # ten of 200; unpaired it would hold 0
    assert drawn["base"].std() > 2 * (drawn["better"] - drawn["base"]).std()


def test_counts_of_other_clips_are_refused():
    with pytest.raises(ValueError, match="the same clips"):
        bootstrap({"a": [np.zeros((3, 2, 3))], "b": [np.zeros((4, 2, 3))]})
