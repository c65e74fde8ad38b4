import numpy as np
import pytest

from task_aware.data.levels import ActivePart, Frames, active_part, constant_offset, power_spectrum, room_gain

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


def draw(recording: np.ndarray, seed: int) -> tuple[int, ActivePart]:
    """Two seconds of a recording: where they start, and their active part."""
    frames = Frames.of(recording, RATE)
    start = frames.random_start(2 * RATE, np.random.default_rng(seed))
    return start, frames.active_part(start, 2 * RATE)


@pytest.mark.parametrize("start", [0, 320, 3200, 1000, 20001])
def test_the_active_part_of_a_stretch_is_that_of_its_samples(start):
    recording = np.concatenate([burst(1.5, lead=0.3, seed=1), burst(0.5, lead=0.6, tail=0.1, level=0.01, seed=2)])
    recording = np.append(recording, burst(0.003, seed=3))  # the last frame is short
    found = Frames.of(recording, RATE).active_part(start, len(recording) - start)
    exact = active_part(recording[start:], RATE)
    assert (found.first, found.last) == pytest.approx((exact.first, exact.last), abs=0 if start % 320 == 0 else 320)
    assert found.rms == pytest.approx(exact.rms, rel=1e-6 if start % 320 == 0 else 0.05)
    assert found.energy == pytest.approx(exact.energy, rel=1e-6 if start % 320 == 0 else 0.05)


def test_stretches_hold_the_whole_sound_where_it_fits():
    firsts = set()
    for seed in range(50):
        _, part = draw(burst(1.0, lead=6.0, tail=5.0), seed)
        assert part.last - part.first == pytest.approx(RATE, abs=320)
        firsts.add(part.first)
    assert len(firsts) > 20
    assert min(firsts) < 0.2 * RATE and max(firsts) > 0.8 * RATE


def test_stretches_of_longer_sounds_are_half_full_at_least():
    for seed in range(50):
        _, part = draw(burst(4.0, lead=6.0, tail=6.0), seed)
        assert part.last - part.first >= 0.98 * RATE


def test_stretches_reach_both_ends_of_a_recording():
    recording = np.ones(3 * RATE + 123, dtype=np.float32)
    starts = [draw(recording, seed)[0] for seed in range(600)]
    assert min(starts) == 0
    assert max(starts) == len(recording) - 2 * RATE


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
        assert 20 * np.log10(room_gain(power_spectrum(samples), power_spectrum(room)) / exact) == pytest.approx(
            0.0, abs=1.0
        )


def test_an_offset_is_told_from_a_low_sound_and_from_chance():
    time = np.arange(4 * RATE) / RATE
    thump = np.where(time < 0.05, 0.5 * np.sin(np.pi * time / 0.05), 0.0)  # half a period, then silence
    for samples in (burst(0.3), burst(0.3, tail=3.7), thump):
        assert constant_offset(samples, RATE) == 0.0
        for offset in (0.02, -0.02):
            assert constant_offset(samples + offset, RATE) == pytest.approx(offset, abs=0.005)
    for samples in (0.5 * np.sin(2 * np.pi * 0.7 * time), burst(0.005)):
        assert constant_offset(samples, RATE) == 0.0
    assert constant_offset(np.full(1000, 0.1), RATE) == pytest.approx(0.1)
