"""Decoding: hand-made cases, and scipy and dcase_util as oracles."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter

from task_aware.data.labels import Event
from task_aware.models.decoding import decode

FRAME_SECONDS = 4 * 255 / 16000


def track(n_frames: int, *spans: tuple[int, int]) -> np.ndarray:
    """[T', 1] probabilities: 0.9 within the spans of frames, 0.1 elsewhere."""
    frame = np.full((n_frames, 1), 0.1, dtype=np.float32)
    for start, stop in spans:
        frame[start:stop] = 0.9
    return frame


class TestDecode:
    def test_one_run_is_one_event_in_seconds(self):
        assert decode(track(157, (16, 48)), ["Dog"], FRAME_SECONDS) == [Event(16 * 0.06375, 48 * 0.06375, "Dog")]

    @pytest.mark.parametrize("span", [(0, 5), (152, 157)])
    def test_the_median_filter_keeps_a_sound_at_the_end_of_a_clip(self, span):
        """sed_scores_eval's removes it (findings/clip_ends_in_sed_scores_eval.sh)."""
        found = decode(track(157, span), ["Dog"], FRAME_SECONDS, median_frames=9)
        assert found == decode(track(157, span), ["Dog"], FRAME_SECONDS, median_frames=1) != []

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
