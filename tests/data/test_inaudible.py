"""What is no sound, an offset, drift, or the delay of a response, changes neither labels nor levels of mixtures."""

import numpy as np
import pytest

from task_aware.data import RirBank, Soundbank

from .mixtures import LABELS, decibels, images, mixer, mixture_of, recipe, same
from .recordings import RATE, burst, write

SECONDS = np.arange(4 * RATE) / RATE
INAUDIBLE = {
    "offset": np.full(4 * RATE, 0.005),
    "negative offset": np.full(4 * RATE, -0.02),
    "drift": 0.02 * np.sin(2 * np.pi * 0.2 * SECONDS),
    "wind": 0.01 * np.sin(2 * np.pi * 3.0 * SECONDS),
}


def bank_of(folder, samples):
    write(folder / "foreground/Dog/bark.wav", samples)
    return folder


def drawn(root):
    return mixture_of(mixer(root, recipe(n_events=(1, 1))), 0)


@pytest.mark.filterwarnings("ignore:.*no backgrounds")
@pytest.mark.parametrize("kind", INAUDIBLE)
def test_a_stem_has_the_label_and_the_level_of_its_sound(tmp_path, kind):
    sound = burst(0.3, lead=1.0, tail=2.7)
    clean = drawn(bank_of(tmp_path / "clean", sound))
    found = drawn(bank_of(tmp_path / "other", sound + INAUDIBLE[kind]))
    (event,), (wanted,) = found.events, clean.events
    assert wanted.offset - wanted.onset == pytest.approx(0.3)
    assert (event.onset, event.offset) == pytest.approx((wanted.onset, wanted.offset), abs=0.021)
    active = slice(round(wanted.onset * RATE), round(wanted.offset * RATE))
    assert decibels(np.std(found.sources[0, active]) / np.std(clean.sources[0, active])) == pytest.approx(0, abs=0.1)


@pytest.mark.filterwarnings("ignore:.*no backgrounds")
def test_an_offset_is_taken_out_of_a_stem_which_would_click_at_its_ends(tmp_path, caplog):
    sound = burst(0.3, lead=1.0, tail=2.7)
    root = bank_of(tmp_path, np.rint((sound + 0.005) * 32768) / 32768)
    bank = Soundbank(root, LABELS)
    recording = bank.read(bank.foreground["Dog"][0])
    assert recording.scale == 1 / 32768
    assert np.abs(recording.samples[:16000]).max() <= 1
    assert "1 of the 1 recordings" in caplog.text and "constant offset" in caplog.text and "bark.wav" in caplog.text
    caplog.clear()
    Soundbank(root, LABELS)
    assert "bark.wav" in caplog.text  # also where it was decoded before


def test_a_stem_without_anything_above_20_hz_is_silent(tmp_path):
    root = bank_of(tmp_path, np.full(RATE, 0.1))
    write(root / "foreground/Dog/wow.wav", burst(0.2))
    bank = Soundbank(root, LABELS, max_broken=0.5)
    assert list(bank.rejected) == ["foreground/Dog/bark.wav"]


@pytest.mark.filterwarnings("ignore:.*no backgrounds")
@pytest.mark.parametrize("delay", [40, 1600, 6400])
def test_a_delayed_response_gives_the_same_label_and_the_same_mixture_1_ms_later_at_most(tmp_path, delay):
    root = bank_of(tmp_path / "bank", burst(0.3, lead=0.1, tail=0.1))
    response = np.random.default_rng(0).normal(size=6000) * np.exp(-np.arange(6000) / 800) * 0.05
    response[0] = 0.9
    mixtures = {}
    for late in (16, delay):
        write(tmp_path / f"rooms{late}/a.wav", np.append(np.zeros(late), response))
        rooms = RirBank(tmp_path / f"rooms{late}", 0.3)
        mixtures[late] = mixture_of(mixer(root, recipe(n_events=(1, 1), reverb=True, max_rir_seconds=0.3), rooms), 3)
    assert same(mixtures[16], mixtures[delay])
    image = images(mixtures[delay])[0]
    heard = np.flatnonzero(np.abs(image) > 0.1 * np.abs(image).max())[0] / RATE
    assert heard == pytest.approx(mixtures[delay].events[0].onset, abs=0.003)
