"""Work that several threads do at once, in order."""

import threading

import numpy as np
import pytest
import torch

from task_aware import Predictor
from task_aware.base.errors import RecordingError
from task_aware.inference.workers import in_order

from .test_predictor import waveform


@pytest.fixture
def threads():
    """Four threads for torch, however many cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield 4
    torch.set_num_threads(before)


def test_workers_answer_in_order_and_share_the_threads(threads):
    second_began = threading.Event()
    taken = []

    def items():
        for item in range(20):
            taken.append(item)
            yield item

    def work(item):
        if item == 0:
            assert second_began.wait(30)  # the first ends after the second has begun
        if item == 1:
            second_began.set()
        return item, torch.get_num_threads()

    found = in_order(work, items(), 2)
    assert next(found) == (0, 2) and len(taken) <= 6
    assert list(found) == [(item, 2) for item in range(1, 20)]
    assert torch.get_num_threads() == threads


def test_an_error_reaches_the_caller(threads):
    def work(item):
        if item == 2:
            raise RuntimeError("no memory left")
        return item

    found = []
    with pytest.raises(RuntimeError, match="no memory left"):
        found.extend(in_order(work, iter(range(100)), 2))
    assert found == [] or found == [0, 1][: len(found)]
    assert torch.get_num_threads() == threads


def test_workers_change_no_probability(class_separator):
    """Windows of several recordings, one of which fails in between."""
    class_separator.plausible = 0.0
    predictor = Predictor(class_separator, device="cpu", window_seconds=4.0, overlap_seconds=1.0)
    sounds = {"a": waveform(11), "c": waveform(7)}

    def windows():
        yield from (("a", window) for window in predictor.windowing.cut([sounds["a"]], "a"))
        yield "b", RecordingError("b cannot be read")
        yield from (("c", window) for window in predictor.windowing.cut([sounds["c"]], "c"))

    def found(workers):
        parts = {"a": [], "c": []}
        results = dict(predictor.analyse(windows(), lambda key, sources: parts[key].append(sources), workers))
        assert list(results) == ["a", "b", "c"] or list(results) == ["b", "a", "c"]
        return results, {key: np.concatenate(each, axis=-1) for key, each in parts.items()}

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    (alone, sources), (together, sources_together) = found(1), found(3)
    torch.set_num_threads(before)
    for key in ("a", "c"):
        assert np.array_equal(alone[key].scores, together[key].scores)
        assert alone[key].events == together[key].events
        assert np.array_equal(sources[key], sources_together[key])
    assert isinstance(together["b"], RecordingError)


def test_detectors_of_others_are_called_by_one_thread(small_detector, threads):
    class Foreign(torch.nn.Module):
        labels, frame_seconds = small_detector.labels, small_detector.frame_seconds
        feature_config, mean, std = small_detector.feature_config, small_detector.mean, small_detector.std

    assert Predictor(small_detector, device="cpu").most_workers == threads
    assert Predictor(Foreign(), device="cpu").most_workers == 1
