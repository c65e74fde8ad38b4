"""Scores: hand-made cases, and values measured with sed_eval."""

from __future__ import annotations

import json
import math

import pytest

from task_aware.data.labels import Event
from task_aware.scoring.metrics import event_f1, segment_f1

from .measured import FIXTURES, needs_fixtures, read_list, read_tsv


class TestEventF1:
    reference = {"a": [Event(1.0, 3.0, "Dog"), Event(5.0, 6.0, "Cat")], "b": [Event(0.0, 9.0, "Speech")]}
    labels = ["Cat", "Dog", "Frying", "Speech"]

    def test_collars(self):
        # Onset within 0.2 s; offset within max(0.2 s, 20 % of 9 s = 1.8 s).
        for speech, right in ((Event(0.19, 7.3, "Speech"), True), (Event(0.21, 9.0, "Speech"), False)):
            scores = event_f1(self.reference, {"b": [speech]}, self.labels)
            assert scores.per_class["Speech"] == float(right)
        cat = {"a": [Event(5.0, 6.3, "Cat")]}
        assert event_f1(self.reference, cat, self.labels).per_class["Cat"] == 0.0
        assert event_f1(self.reference, cat, self.labels, t_collar=0.35).per_class["Cat"] == 1.0
        assert event_f1(self.reference, cat, self.labels, percentage_of_length=0.4).per_class["Cat"] == 1.0

    def test_numbers_by_hand(self):
        estimated = {
            "a": [Event(1.0, 3.0, "Dog"), Event(7.0, 8.0, "Dog"), Event(5.0, 6.0, "Speech")],
            "b": [Event(0.1, 9.0, "Speech")],
        }
        scores = event_f1(self.reference, estimated, self.labels)
        assert scores.per_class == pytest.approx({"Cat": 0.0, "Dog": 2 / 3, "Speech": 2 / 3})
        assert scores.macro == pytest.approx((0 + 2 / 3 + 2 / 3) / 3)
        assert scores.precision == pytest.approx(2 / 4)
        assert scores.recall == pytest.approx(2 / 3)
        assert scores.micro == pytest.approx(4 / 7)
        assert scores.error_rate == pytest.approx((1 + 0 + 1) / 3)  # Cat as Speech is a substitution
        assert scores.counts == {"Cat": (1, 0), "Dog": (1, 2), "Speech": (1, 2)}

    def test_a_class_that_is_never_there_is_not_averaged(self):
        """Not with detections either, or a false alarm would change the classes that systems are compared on."""
        perfect = event_f1(self.reference, self.reference, self.labels)
        estimated = {**self.reference, "b": [*self.reference["b"], Event(1.0, 2.0, "Frying")]}
        false_alarm = event_f1(self.reference, estimated, self.labels)
        for scores in (perfect, false_alarm):
            assert (scores.macro, scores.averaged, scores.left_out) == (1.0, ("Cat", "Dog", "Speech"), ("Frying",))
        assert (perfect.false_alarms, false_alarm.false_alarms) == (0, 1)
        assert "Frying" not in perfect.counts and false_alarm.counts["Frying"] == (0, 1)
        assert (perfect.precision, false_alarm.precision) == (1.0, 3 / 4)
        assert false_alarm.table().splitlines()[3].split() == ["Frying", "-", "0", "1"]

    def test_no_detections_is_zero_not_nan(self):
        for score in (event_f1, segment_f1):
            scores = score(self.reference, {}, self.labels)
            assert (scores.macro, scores.micro, scores.precision, scores.recall) == (0.0, 0.0, 0.0, 0.0)
            assert scores.error_rate == pytest.approx(1.0)
            assert scores.averaged == ("Cat", "Dog", "Speech")

    def test_nothing_in_the_reference(self):
        scores = event_f1({"a": []}, {"a": [Event(0.0, 1.0, "Dog")]}, self.labels)
        assert (scores.macro, scores.micro, scores.averaged) == (0.0, 0.0, ())
        assert math.isnan(scores.error_rate)
        assert event_f1({"a": []}, {}, self.labels).averaged == ()

    def test_table_names_every_class(self):
        table = event_f1(self.reference, {"a": [Event(1.0, 3.0, "Dog")]}, self.labels).table()
        lines = table.splitlines()
        assert lines[2].split() == ["Dog", "100.00", "1", "1"]
        assert "macro average" in table and "33.33" in table and "of 3 classes" in table
        assert lines[-1].endswith("Frying")

    @pytest.mark.parametrize(
        ("reference", "estimated", "message"),
        [
            ({}, {}, "reference is empty"),
            ({"a.wav": []}, {"a.flac": []}, "'a.flac'"),
            ({"a": [Event(0.0, 1.0, "Dig")]}, {}, "reference has an event 'Dig' in 'a'"),
            ({"a": []}, {"a": [Event(2.0, 1.0, "Dog")]}, "estimated has an event from 2.0 s to 1.0 s"),
            ({"a": [Event(math.nan, 1.0, "Dog")]}, {}, "from nan s"),
        ],
    )
    def test_bad_input_is_one_sentence(self, reference: dict, estimated: dict, message: str):
        for score in (event_f1, segment_f1):
            with pytest.raises(ValueError, match=message):
                score(reference, estimated, self.labels)


def test_segment_f1_by_hand():
    reference = {"a": [Event(0.0, 4.0, "Dog")], "b": [Event(2.5, 3.5, "Cat")]}
    estimated = {"a": [Event(0.0, 2.0, "Dog")], "b": [Event(3.0, 3.2, "Cat")]}
    scores = segment_f1(reference, estimated, ["Cat", "Dog"])
    assert scores.per_class == pytest.approx({"Cat": 2 / 3, "Dog": 2 / 3})
    assert scores.counts == {"Cat": (2, 1), "Dog": (4, 2)}
    finer = segment_f1(reference, estimated, ["Cat", "Dog"], resolution=0.5)
    assert finer.counts == {"Cat": (2, 1), "Dog": (8, 4)}


def test_segments_with_inexact_borders_come_with_a_note():
    """0.3 s to 0.4 s fills one segment of 0.1 s, and sed_eval counts two; with borders that are exact it counts one."""
    reference = {"a": [Event(0.3, 0.4, "Dog")]}
    tenths = segment_f1(reference, reference, ["Dog"], resolution=0.1)
    assert tenths.counts == {"Dog": (2, 2)}
    assert "segments of 0.1 s: an event whose borders" in tenths.table()
    for resolution in (1, 0.5, 0.125):
        exact = {"a": [Event(3 * resolution, 4 * resolution, "Dog")]}
        scores = segment_f1(exact, exact, ["Dog"], resolution=resolution)
        assert scores.counts == {"Dog": (1, 1)} and "segments of" not in scores.table()


@needs_fixtures
@pytest.mark.parametrize(("score", "key"), [(event_f1, "event_optimal"), (segment_f1, "segment_1s")])
def test_desed_student(score, key: str):
    student = json.loads((FIXTURES / "expected.json").read_text())["desed_student"]
    expected = student["sed_eval"][key]
    reference = read_tsv(FIXTURES / "desed" / "validation.tsv")
    estimated = read_tsv(FIXTURES / "desed" / "student_predictions_0.5.tsv")
    assert len(reference) == 1168
    scores = score(reference, estimated, student["classes"])
    assert scores.macro == pytest.approx(expected["macro_f1"], abs=1e-9)
    assert scores.micro == pytest.approx(expected["micro_f1"], abs=1e-9)
    assert scores.precision == pytest.approx(expected["micro_precision"], abs=1e-9)
    assert scores.recall == pytest.approx(expected["micro_recall"], abs=1e-9)
    assert scores.error_rate == pytest.approx(expected["micro_error_rate"], abs=1e-9)
    assert scores.per_class == pytest.approx(expected["class_f1"], abs=1e-9)
    assert scores.averaged == tuple(student["classes"])


def small_case(inputs: dict) -> tuple[dict, dict]:
    if "pairs" in inputs:
        pairs = [[sum(read_list(FIXTURES / path).values(), []) for path in pair] for pair in inputs["pairs"]]
        return (
            {str(index): reference for index, (reference, _) in enumerate(pairs)},
            {str(index): estimated for index, (_, estimated) in enumerate(pairs)},
        )
    if "label" in inputs:
        reference, estimated = (
            {"a": [Event(*span, inputs["label"]) for span in inputs[side]]} for side in ("reference", "estimated")
        )
        return reference, estimated
    return read_list(FIXTURES / inputs["reference"]), read_list(FIXTURES / inputs["estimated"])


@needs_fixtures
@pytest.mark.parametrize(
    "name",
    [
        "street_segment",
        "street_event_optimal",
        "binary_segment",
        "binary_event",
        "binary5_event",
        "car_segment",
        "car_event",
    ],
)
def test_small_cases_of_sed_eval(name: str):
    cases = json.loads((FIXTURES / "expected.json").read_text())["sed_eval_small"]
    case = next(case for case in cases if case["name"] == name)
    reference, estimated = small_case(case["inputs"])
    labels = sorted({event.label for events in reference.values() for event in events})
    if case["metric"] == "segment":
        scores = segment_f1(reference, estimated, labels, resolution=case["parameters"]["time_resolution"])
    else:  # sed_eval's default of percentage_of_length is 0.5
        t_collar = case["parameters"].get("t_collar", 0.2)
        scores = event_f1(reference, estimated, labels, t_collar=t_collar, percentage_of_length=0.5)
    for ours, theirs in (
        ("macro", "macro_f1"),
        ("micro", "micro_f1"),
        ("precision", "micro_precision"),
        ("recall", "micro_recall"),
        ("error_rate", "micro_error_rate"),
    ):
        assert getattr(scores, ours) == pytest.approx(case["measured"][theirs], abs=1e-9), ours


def test_a_class_may_be_called_none():
    """sed_eval takes such a label for no label."""
    events = {"a": [Event(0.0, 1.0, "None")]}
    assert event_f1(events, events, ("None", "x")).macro == segment_f1(events, events, ("None", "x")).macro == 1.0
