"""Silence is found by energy: events get times of their own, and what is cut has a reason."""

import numpy as np
import pytest

from task_aware.importing.activity import active_stretches

from .sounds import RATE, barks


def events(samples, **options):
    return [(onset, offset) for onset, offset, reason in active_stretches(samples, RATE, **options) if not reason]


@pytest.mark.parametrize("noise", [0.0, 1e-4, 5e-3])
def test_a_clip_of_two_barks_is_two_events_at_their_times(noise):
    found = active_stretches(barks(1.0, 3.2, noise=noise), RATE)
    assert np.array(events(barks(1.0, 3.2, noise=noise))) == pytest.approx(
        np.array([(1.0, 1.4), (3.2, 3.6)]), abs=0.041
    )
    assert [reason for *_, reason in found] == [
        "silence at the beginning",
        "",
        "silence between events",
        "",
        "silence at the end",
    ]
    assert [found[0].onset, *(stretch.offset for stretch in found)] == [0.0, *(s.onset for s in found[1:]), 5.0]


def test_pauses_up_to_the_gap_stay_inside_an_event():
    samples = barks(1.0, 1.7)
    assert len(events(samples)) == 1 and len(events(samples, gap=0.1)) == 2


def test_a_steady_sound_is_one_event_of_the_whole_clip():
    assert events(barks(seconds=3.0, noise=0.05)) == [(0.0, 3.0)]
    assert events(barks(0.0, seconds=0.4)) == [(0.0, 0.4)]


def test_a_quiet_event_beside_a_loud_one_is_kept():
    samples = barks(3.0)
    samples[16000:24000] += 0.01 * np.random.default_rng(1).standard_normal(8000).astype(np.float32)
    found = active_stretches(samples, RATE, gap=0.2)
    assert [round(onset) for onset, _, reason in found if not reason] == [1, 3]


def test_digital_silence_is_no_event():
    assert events(np.zeros(RATE, dtype=np.float32)) == []
    assert [stretch.reason for stretch in active_stretches(np.zeros(RATE, dtype=np.float32), RATE)] == ["silence"]
