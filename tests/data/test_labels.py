import numpy as np
import pytest

from task_aware.base.errors import DataError
from task_aware.data import DESED_CLASSES, Event, LabelEncoder

FRAME = 4 * 255 / 16000


def test_classes_are_the_ten_of_desed_in_order():
    assert len(DESED_CLASSES) == 10
    assert list(DESED_CLASSES) == sorted(DESED_CLASSES)


def test_weak_marks_the_named_classes():
    encoder = LabelEncoder(DESED_CLASSES)
    target = encoder.weak(["Dog", "Speech", "Dog"])
    assert target.dtype == np.float32
    assert np.flatnonzero(target).tolist() == [encoder.index("Dog"), encoder.index("Speech")]
    assert encoder.weak([]).sum() == 0


def test_strong_takes_every_frame_an_event_touches():
    target = LabelEncoder(["Cat", "Dog"]).strong([Event(0.5 * FRAME, 2.1 * FRAME, "Dog")], 5, FRAME)
    assert target.dtype == np.float32 and target.shape == (5, 2)
    assert target[:, 1].tolist() == [1, 1, 1, 0, 0]
    assert not target[:, 0].any()


def test_bounds_on_frame_edges_take_no_neighbour():
    encoder = LabelEncoder(["Dog"])
    for first in range(154):
        target = encoder.strong([Event(first * FRAME, (first + 3) * FRAME, "Dog")], 157, FRAME)
        assert np.flatnonzero(target[:, 0]).tolist() == [first, first + 1, first + 2]


def test_offsets_past_the_end_are_cut():
    encoder = LabelEncoder(["Dog"])
    target = encoder.strong([Event(9.9, 10.115, "Dog")], 157, FRAME)
    assert np.flatnonzero(target[:, 0]).tolist() == [155, 156]
    assert not encoder.strong([Event(10.05, 10.1, "Dog")], 157, FRAME).any()


def test_what_cannot_be_encoded_says_why():
    with pytest.raises(DataError, match="Unknown label 'Bird'.*Cat, Dog"):
        LabelEncoder(["Cat", "Dog"]).weak(["Bird"])
    with pytest.raises(ValueError, match="Dog more than once"):
        LabelEncoder(["Dog", "Dog"])
    with pytest.raises(ValueError, match="sequence of class names"):
        LabelEncoder("Dog")
    with pytest.raises(ValueError, match="n_frames"):
        LabelEncoder(["Dog"]).strong([], -1, FRAME)
