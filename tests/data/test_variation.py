"""Events that are varied each time they are mixed: cut, and played at another speed."""

import numpy as np
import pytest

from task_aware.data import MixingConfig
from task_aware.data.levels import active_part

from .mixtures import LABELS, arrays, mixer, mixture_of, recipe, same, spans
from .recordings import RATE, burst, write


def lengths(drawing, count):
    return np.array([at.length for index in range(count) for at in drawing.plan(index).sources]) / RATE


def only(root, *names):
    """Leaves the recordings of these classes alone."""
    for path in (root / "audio/train/soundbank/foreground").rglob("*.*"):
        if path.is_file() and path.parent.name not in names:
            path.unlink()


def test_long_events_are_cut_at_random_and_short_ones_stay_whole(root):
    only(root, "Frying_nOn_nOff", "Dog")
    drawing = mixer(root, recipe(n_events=(2, 2), event_seconds=(1.0, 3.0)))
    plans = [drawing.plan(index) for index in range(200)]
    frying = np.array([at.length for plan in plans for at in plan.sources if "Frying" in str(at.path)]) / RATE
    counts, _ = np.histogram(frying, bins=4, range=(1.0, 3.0))
    assert frying.min() >= 1.0 and frying.max() <= 3.0 and counts.min() > 30
    assert {at.length for plan in plans for at in plan.sources if "Dog" in str(at.path)} == {round(0.4 * RATE)}
    first = [at.first for plan in plans for at in plan.sources if "Frying" in str(at.path)]
    assert min(first) < RATE and max(first) > 4 * RATE  # anywhere in the 7 s


def test_cuts_are_as_long_as_the_mixture_at_most(root):
    only(root, "Frying_nOn_nOff")
    assert set(lengths(mixer(root, recipe(n_events=(1, 1), event_seconds=(6.0, 9.0))), 20)) == {5.0}


@pytest.mark.parametrize("speed", [0.5, 1.25])
def test_speed_moves_pitch_and_length_but_not_the_level(root, speed):
    only(root)
    tone = 0.2 * np.sin(2 * np.pi * 500 * np.arange(2 * RATE) / RATE).astype(np.float32)
    write(root / "audio/train/soundbank/foreground/Dog/tone.wav", tone)
    mixture = mixture_of(mixer(root, recipe(n_events=(1, 1), speed=(speed, speed))), 3)
    part = active_part(mixture.sources[0], RATE)
    played = mixture.sources[0][part.first : part.last]
    assert len(played) / RATE == pytest.approx(2.0 / speed, abs=0.04)
    spectrum = np.abs(np.fft.rfft(played * np.hanning(len(played))))
    assert spectrum.argmax() * RATE / len(played) == pytest.approx(500 * speed, rel=0.01)
    assert np.sqrt(np.mean(played[800:-800] ** 2)) == pytest.approx(1.0, rel=0.02)  # as `MixturePlan` says


def test_labels_follow_the_speed(root):
    only(root, "Speech", "Dog")
    drawing = mixer(root, recipe(n_events=(1, 2), speed=(0.7, 1.4)))
    for index in range(30):
        mixture = mixture_of(drawing, index)
        for row, label in enumerate(mixture.labels[mixture.labels >= 0]):
            part = active_part(mixture.sources[row], RATE)
            onset, offset = spans(mixture, LABELS[label])[0]
            assert onset * RATE == pytest.approx(part.first, abs=500)
            assert offset * RATE == pytest.approx(part.last, abs=500)


def test_speeds_are_spread_evenly_in_octaves(root):
    only(root, "Speech_nOff")
    played = lengths(mixer(root, recipe(n_events=(1, 1), speed=(0.5, 2.0))), 400)
    counts, _ = np.histogram(np.log2(0.5 / played), bins=4, range=(-1, 1))
    assert counts.sum() == 400 and counts.min() > 70


@pytest.mark.parametrize("speed", [(0.5, 0.5), (2.0, 2.0), (0.8, 1.25)])
def test_whatever_the_speed_an_event_fits_into_the_mixture(root, speed):
    write(root / "audio/train/soundbank/foreground/Dog/short.wav", burst(0.021, seed=9))
    drawing = mixer(root, recipe(n_events=(1, 3), speed=speed, event_seconds=(0.01, 5.0)), clip_seconds=1.0)
    for index in range(60):
        plan, mixture = drawing.plan(index), mixture_of(drawing, index)
        assert all(at.length > 0 and at.start >= 0 and at.start + at.length <= RATE for at in plan.sources)
        assert all(np.isfinite(array).all() for array in arrays(mixture))
        assert all(0.0 <= event.onset < event.offset <= 1.0 for event in plan.events)


def test_varied_mixtures_too_are_a_function_of_seed_and_index(root):
    config = recipe(speed=(0.8, 1.25), event_seconds=(0.8, 4.5))
    first, again = mixer(root, config, seed=3), mixer(root, config, seed=3)
    forwards = [mixture_of(first, index) for index in range(4)]
    assert all(same(mixture_of(again, index), forwards[index]) for index in (3, 1, 0, 2))


@pytest.mark.parametrize("name", ["speed", "event_seconds"])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (2.0, 1.0), (1.0, float("inf")), (float("nan"), 1.0), (1.0,)])
def test_ranges_that_cannot_be_drawn_from_are_refused(name, bounds):
    with pytest.raises(ValueError, match=rf"mixing\.{name} must be two finite numbers above 0"):
        MixingConfig(**{name: bounds})
