"""Decoding and scores: hand-made cases, scipy and dcase_util as oracles, values measured with sed_eval."""

from __future__ import annotations

import csv
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter

from task_aware.data.desed import write_events
from task_aware.data.labels import Event
from task_aware.metrics import event_f1, segment_f1
from task_aware.models.decoding import decode

FIXTURES = Path(__file__).parents[1] / ".." / "shared" / "metrics"
FRAME_SECONDS = 4 * 255 / 16000

needs_fixtures = pytest.mark.skipif(
    not (FIXTURES / "expected.json").is_file(), reason="the measured values of shared/metrics are not here"
)


def track(n_frames: int, *spans: tuple[int, int]) -> np.ndarray:
    """[T', 1] probabilities: 0.9 within the spans of frames, 0.1 elsewhere."""
    frame = np.full((n_frames, 1), 0.1, dtype=np.float32)
    for start, stop in spans:
        frame[start:stop] = 0.9
    return frame


class TestDecode:
    def test_one_run_is_one_event_in_seconds(self):
        assert decode(track(157, (16, 48)), ["Dog"], FRAME_SECONDS) == [Event(16 * 0.06375, 48 * 0.06375, "Dog")]

    def test_the_threshold_itself_is_active(self):
        frame = np.full((10, 1), 0.5, dtype=np.float32)
        assert decode(frame, ["Dog"], 1.0) == [Event(0.0, 10.0, "Dog")]
        assert decode(frame, ["Dog"], 1.0, threshold=0.51) == []

    def test_median_of_7_drops_3_frames_keeps_4_and_fills_gaps_of_3(self):
        assert decode(track(40, (10, 13)), ["Dog"], 1.0, duration=40) == []
        assert decode(track(40, (10, 14)), ["Dog"], 1.0, duration=40) == [Event(10.0, 14.0, "Dog")]
        assert decode(track(40, (5, 12), (15, 22)), ["Dog"], 1.0, duration=40) == [Event(5.0, 22.0, "Dog")]

    def test_events_are_cut_at_the_duration(self):
        events = decode(track(157, (100, 157)), ["Dog"], FRAME_SECONDS)
        assert events == [Event(100 * FRAME_SECONDS, 10.0, "Dog")]
        assert decode(track(20, (12, 20)), ["Dog"], 1.0) == []

    def test_sorted_by_onset_then_label(self):
        frame = np.zeros((60, 3), dtype=np.float32)
        frame[30:40, 0] = frame[10:20, 1] = frame[10:30, 2] = 1.0
        labels = ["Cat", "Speech", "Dog"]
        events = decode(frame, labels, 0.1)
        assert [(event.onset, event.label) for event in events] == [
            (1.0, "Dog"),
            (1.0, "Speech"),
            (3.0, "Cat"),
        ]

    @pytest.mark.parametrize("median_frames", [1, 2, 7, 8])
    def test_agrees_with_scipy_and_dcase_util(self, median_frames: int):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pkg_resources")
            from dcase_util.data import DecisionEncoder, ProbabilityEncoder
        generator = np.random.default_rng(median_frames)
        labels = [f"class_{index}" for index in range(10)]
        for n_frames in (1, 5, 157):
            noise = generator.normal(size=(n_frames, 10)).cumsum(axis=0)
            probabilities = 1 / (1 + np.exp(-noise))
            binary = ProbabilityEncoder().binarization(probabilities, threshold=0.5)
            filtered = median_filter(binary, (median_frames, 1))
            expected = [
                Event(float(onset) * FRAME_SECONDS, min(float(offset) * FRAME_SECONDS, 10.0), label)
                for index, label in enumerate(labels)
                for onset, offset in DecisionEncoder().find_contiguous_regions(filtered[:, index].astype(bool))
            ]
            events = decode(probabilities, labels, FRAME_SECONDS, median_frames=median_frames)
            assert sorted(events, key=lambda event: event.label) == expected
        assert events

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_tensors_of_any_type_that_need_gradients(self, dtype: torch.dtype):
        frame = torch.from_numpy(track(157, (16, 48))).to(dtype).requires_grad_()
        assert decode(frame, ["Dog"], FRAME_SECONDS) == decode(track(157, (16, 48)), ["Dog"], FRAME_SECONDS)

    def test_no_frames_no_events(self):
        assert decode(np.zeros((0, 2)), ["Cat", "Dog"], 0.1) == []

    @pytest.mark.parametrize(
        ("frame", "options", "message"),
        [
            (np.zeros((157, 2)), {}, r"\[157, 2\].*\[T', 1\]"),
            (np.zeros((3, 157, 1)), {}, r"\[3, 157, 1\]"),
            (np.full((5, 1), np.nan), {}, "NaN"),
            (np.zeros((5, 1)), {"median_frames": 0}, "median_frames is 0"),
        ],
    )
    def test_bad_input_is_one_sentence(self, frame: np.ndarray, options: dict, message: str):
        with pytest.raises(ValueError, match=message):
            decode(frame, ["Dog"], 0.1, **options)


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
            ({}, {}, "reference names no file"),
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


def test_write_events(tmp_path: Path):
    path = tmp_path / "deep" / "events.tsv"
    write_events(path, {"a.wav": [Event(0.12345, 10.0, "Dog")], "b.wav": []})
    assert path.read_text() == "filename\tonset\toffset\tevent_label\na.wav\t0.123\t10.000\tDog\nb.wav\t\t\t\n"
    assert list(path.parent.iterdir()) == [path]


def read_tsv(path: Path) -> dict[str, list[Event]]:
    events: dict[str, list[Event]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            of_file = events.setdefault(row["filename"], [])
            if row["event_label"]:
                of_file.append(Event(float(row["onset"]), float(row["offset"]), row["event_label"]))
    return events


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
