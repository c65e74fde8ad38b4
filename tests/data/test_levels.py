import numpy as np
import pytest

from task_aware.data.levels import active_part, loop, random_stretch, room_gain

from .recordings import burst

RATE = 16000


def test_silence_around_an_event_is_no_part_of_it():
    part = active_part(burst(0.5, lead=0.2, tail=1.0, level=0.1), RATE)
    assert (part.first / RATE, part.last / RATE) == pytest.approx((0.2, 0.7), abs=0.001)
    assert part.rms == pytest.approx(0.1, rel=0.05)


def test_what_is_40_db_below_the_loudest_frame_is_inactive():
    loud, within, below = (burst(0.2, level=level, seed=1) for level in (0.1, 0.0015, 0.0006))
    part = active_part(np.concatenate([below, within, loud, below]), RATE)
    assert (part.first, part.last) == (3200, 9600)


def test_pauses_do_not_lower_the_level():
    pause = burst(0.3, tail=2.0)
    assert active_part(np.tile(pause, 2), RATE).rms == pytest.approx(active_part(pause[:4800], RATE).rms, rel=1e-3)


def test_recordings_shorter_than_a_frame_count_whole():
    part = active_part(np.full(50, 0.5, dtype=np.float32), RATE)
    assert (part.first, part.last, part.rms) == (0, 50, pytest.approx(0.5))


def test_stretches_hold_the_whole_sound_where_it_fits():
    recording = burst(1.0, lead=6.0, tail=5.0)
    starts = set()
    for seed in range(50):
        part = random_stretch(recording, 2 * RATE, RATE, np.random.default_rng(seed))
        assert len(part.samples) == 2 * RATE
        assert part.last - part.first == pytest.approx(RATE, abs=320)
        starts.add(part.first)
    assert len(starts) > 20
    assert min(starts) < 0.2 * RATE and max(starts) > 0.8 * RATE


def test_stretches_of_longer_sounds_are_half_full_at_least():
    recording = burst(4.0, lead=6.0, tail=6.0)
    for seed in range(50):
        part = random_stretch(recording, 2 * RATE, RATE, np.random.default_rng(seed))
        assert part.last - part.first >= 0.98 * RATE


def test_stretches_reach_both_ends_of_a_recording():
    recording = np.arange(1, 3 * RATE + 124, dtype=np.float32)
    starts = [random_stretch(recording, 2 * RATE, RATE, np.random.default_rng(seed)).samples[0] for seed in range(600)]
    assert min(starts) == 1
    assert max(starts) == len(recording) - 2 * RATE + 1


def test_short_recordings_come_whole():
    recording = burst(0.5)
    assert random_stretch(recording, RATE, RATE, np.random.default_rng(0)).samples is recording


@pytest.mark.parametrize("length", [1, 2, 3, 100, 7000, 79999])
def test_loops_have_the_length_wanted(length):
    looped = loop(np.ones(length, dtype=np.float32), 80000, RATE, np.random.default_rng(0))
    assert looped.shape == (80000,) and looped.dtype == np.float32
    assert looped.min() >= 0.999


def test_loops_keep_the_level_at_their_seams():
    noise = burst(0.5, level=0.1)
    powers = np.square(loop(noise, 100 * 8000, RATE, np.random.default_rng(0))).reshape(-1, 400).mean(axis=1)
    assert np.abs(10 * np.log10(powers / 0.01)).max() < 1.5


def test_loops_start_anywhere():
    noise = burst(0.5)
    assert len({float(loop(noise, 100, RATE, np.random.default_rng(seed))[0]) for seed in range(20)}) > 15


def test_the_gain_of_a_room_is_that_of_its_convolution():
    generator = np.random.default_rng(0)
    response = np.exp(-np.arange(4000) / 600) * generator.standard_normal(4000)
    response /= np.linalg.norm(response)
    noise = burst(1.0)
    hum = np.sin(2 * np.pi * 100 * np.arange(RATE) / RATE).astype(np.float32)
    low_cut = np.array([np.sqrt(0.5), -np.sqrt(0.5)])
    for samples, room in (
        (noise, response),
        (noise, low_cut),
        (hum + 0.01 * noise, low_cut),
        (hum, np.ones(1)),
    ):
        image = np.convolve(samples, room)
        exact = np.sqrt(np.square(image).sum() / np.square(samples, dtype=np.float64).sum())
        assert 20 * np.log10(room_gain(samples, room.astype(np.float32)) / exact) == pytest.approx(0.0, abs=1.0)
