import numpy as np
import pytest

from task_aware.data.offset import OffsetFilter, remove_offset, without_offset

from .recordings import RATE, burst


def test_an_offset_is_taken_out_from_the_first_sample_on():
    noise = burst(2.0)
    difference = remove_offset(noise + np.float32(0.3), RATE) - remove_offset(noise, RATE)
    assert np.abs(difference).max() < 1e-6
    assert np.abs(remove_offset(np.full(RATE, 0.3, np.float32), RATE)).max() < 1e-6


def test_an_offset_that_comes_later_goes_away():
    step = np.repeat(np.float32([0.0, 0.1]), RATE)
    assert np.abs(remove_offset(step, RATE)[-RATE // 10 :]).max() < 1e-3


def test_sound_stays_as_it_is():
    time = np.arange(2 * RATE) / RATE
    for hertz, error in ((20.0, 0.06), (100.0, 0.012)):
        tone = np.sin(2 * np.pi * hertz * time).astype(np.float32)
        assert np.abs(remove_offset(tone, RATE) - tone)[RATE:].max() < error
    assert not remove_offset(np.zeros(RATE, np.float32), RATE).any()


@pytest.mark.parametrize("size", [1, 77, 960, 5000])
def test_pieces_of_any_size_give_the_same(size):
    samples = burst(0.5) + np.float32(0.02)
    pieces = [samples[begin : begin + size] for begin in range(0, len(samples), size)]
    found = np.concatenate(list(without_offset(pieces, RATE)))
    assert np.array_equal(found, remove_offset(samples, RATE))


def test_short_and_empty_recordings_keep_their_length():
    for length in (0, 1, 100):
        samples = np.full(length, 0.5, np.float32)
        assert len(remove_offset(samples, RATE)) == length
        remove = OffsetFilter(RATE)
        assert len(remove(samples)) + len(remove(samples[:0], last=True)) == length
