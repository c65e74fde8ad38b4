"""What a recipe says of numbers and levels shows in the mixtures; a recipe that cannot be drawn is refused."""

import numpy as np
import pytest

from task_aware.data import DynamicMixer, LabelEncoder, MixingConfig, RirBank, Soundbank
from task_aware.data.levels import active_part

from .mixtures import arrays, decibels, images, mixer, mixture_of, recipe, spans
from .recordings import RATE, burst, write


def test_a_class_of_several_events_keeps_their_levels(root):
    config = recipe(n_events=(2, 2), distinct_classes=False, foreground_db=(-30.0, 0.0), reference_db=-10.0)
    drawing = mixer(root, config, clip_seconds=4.0)
    ratios = []
    for index in range(150):
        mixture = mixture_of(drawing, index)
        if len(mixture.events) == 2 and mixture.events[0].label == mixture.events[1].label:
            parts = [
                mixture.sources[0, round(event.onset * RATE) : round(event.offset * RATE)] for event in mixture.events
            ]
            quiet, loud = sorted(active_part(part, RATE).rms for part in parts)
            assert loud == pytest.approx(1.0, rel=0.02)  # levels are measured above 20 Hz
            assert -40.01 <= decibels(mixture.gains[0]) <= -10.0
            ratios.append(decibels(quiet / loud))
    assert len(ratios) > 5
    assert -30.0 <= min(ratios) < -5.0


def test_paper_recipe(root):
    config = MixingConfig.paper()
    config.reverb = False
    counts, levels, backgrounds = [], [], []
    drawing = mixer(root, config)
    for index in range(300):
        mixture = mixture_of(drawing, index)
        used = mixture.labels >= 0
        gains = decibels(mixture.gains[used])
        background = decibels(active_part(mixture.background, RATE).rms)
        # the gain of a row is that of its loudest event, so the quietest one may lie lower
        assert -35.01 <= background <= gains.min() + 5.01
        counts.append(used.sum())
        levels += gains.tolist()
        backgrounds.append(background)
    assert -35.0 <= min(levels) < -30.0 and -2.0 < max(levels) <= 1e-4
    assert set(counts) == {1, 2, 3}
    assert max(backgrounds) > -5.0
    assert config.n_events == (1, 5) and not config.distinct_classes


def test_paper_recipe_draws_recordings_not_classes(root):
    for number in range(16):
        write(root / f"audio/train/soundbank/foreground/Cat/{number}.wav", burst(0.2, seed=number))
    config = recipe(n_events=(1, 1), distinct_classes=False)
    drawing = mixer(root, config)
    by_recording = [drawing.plan(index).labels[0] for index in range(150)]
    assert np.mean(np.array(by_recording) == 0) == pytest.approx(16 / 21, abs=0.12)
    drawing = mixer(root, recipe(n_events=(1, 1)))
    by_class = [drawing.plan(index).labels[0] for index in range(150)]
    assert np.mean(np.array(by_class) == 0) == pytest.approx(1 / 4, abs=0.12)


def test_balanced_recipe(root):
    config = MixingConfig.balanced()
    config.reverb = False
    with pytest.warns(UserWarning, match="has only 3 classes, so mixtures have at most 3 events instead of the 4"):
        drawing = mixer(root, config)
    counts, spreads, ratios, loudest = [], [], [], []
    for index in range(200):
        mixture = mixture_of(drawing, index)
        gains = decibels(mixture.gains[mixture.labels >= 0])
        counts.append(len(gains))
        spreads.append(gains.max() - gains.min())
        ratios.append(decibels(active_part(mixture.background, RATE).rms) - gains.max())
        loudest.append(gains.max())
    assert set(counts) == {2, 3}
    assert 8.0 < max(spreads) <= 10.01
    assert -25.01 <= min(ratios) < -23.0 and -10.0 < max(ratios) <= -7.99
    assert -60.01 <= min(loudest) < -45.0 and -15.0 < max(loudest) <= -9.99


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_events": (3, 2)}, "mixing.n_events must be two finite numbers, the lower one first"),
        ({"n_events": (-1, 2)}, "mixing.n_events must start at 0 or more"),
        ({"n_events": (0, 0)}, "mixing.n_events must start at 0 or more and end at 1 or more"),
        ({"dupse_rate": 1.5}, "mixing.dupse_rate must be between 0 and 1"),
        ({"dupse_rate": 0.5, "distinct_classes": False}, "mixing.dupse_rate is 0.5, but classes are not distinct"),
        ({"rir_receiver": -1}, "mixing.rir_receiver must be 0 or more"),
        ({"rir_measurements": []}, "mixing.rir_measurements must be numbers from 0 on"),
        ({"foreground_db": (0.0,)}, "mixing.foreground_db must be two finite numbers"),
        ({"gain_db": (0.0, float("inf"))}, "mixing.gain_db must be two finite numbers"),
        ({"background_reference": "mean"}, "mixing.background_reference must be"),
        ({"background_reference": "quietest_ceiling", "background_db": (-5.0, -8.0)}, "mixing.background_db"),
        (
            {
                "background_reference": "quietest_ceiling",
                "background_db": (-15.0, 5.0),
                "foreground_db": (-35.0, 0.0),
            },
            "mixing.background_db starts at -15 dB, above the ceiling of -30 dB",
        ),
        ({"reference_db": float("nan")}, "mixing.reference_db must be finite"),
        ({"max_rir_seconds": 0.0}, "mixing.max_rir_seconds must be above 0"),
    ],
)
def test_recipes_that_cannot_be_drawn_name_the_option(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


def test_changed_recipes_are_checked_again(root):
    config = recipe()
    config.n_events = (-1, 1)
    with pytest.raises(ValueError, match="mixing.n_events must start at 0"):
        mixer(root, config)


@pytest.mark.parametrize("config", [MixingConfig.balanced(), MixingConfig.paper()])
def test_mixtures_of_real_recordings(minidesed, config):
    bank, rirs = Soundbank(minidesed), RirBank(minidesed / "rirs")
    encoder = LabelEncoder(bank.labels)
    drawing = DynamicMixer(bank, rirs, encoder, config, n_sources=5, clip_seconds=5.0, seed=1)
    inside = []
    for index in range(40):
        mixture = mixture_of(drawing, index)
        assert all(np.isfinite(array).all() for array in arrays(mixture))
        for row, image in enumerate(images(mixture)[mixture.labels >= 0]):
            labelled = np.zeros(80000, dtype=bool)
            for onset, offset in spans(mixture, bank.labels[mixture.labels[row]]):
                labelled[round(onset * RATE) : round(offset * RATE)] = True
            dry = np.square(mixture.sources[row], dtype=np.float64)
            assert dry[labelled].sum() > 0.999 * dry.sum()
            inside.append(np.square(image[labelled]).sum() / np.square(image).sum())
    assert min(inside) > 0.75 and np.median(inside) > 0.99
