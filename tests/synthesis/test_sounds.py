"""The ten classes: varied, well-formed, and told apart by their spectra neither at once nor never."""

from __future__ import annotations

import numpy as np
import pytest

from task_aware.data.labels import DESED_CLASSES
from task_aware.data.levels import active_part
from task_aware.synthesis.backgrounds import background
from task_aware.synthesis.signals import SAMPLE_RATE
from task_aware.synthesis.sounds import GENERATORS, SHORTEST_SECONDS, sound

LASTING = {"Blender", "Electric_shaver_toothbrush", "Frying", "Running_water", "Vacuum_cleaner"}
IMPULSIVE = {"Cat", "Dishes", "Dog"}


def some(label: str, count: int, *, part: int = 0) -> list[np.ndarray]:
    return [sound(label, np.random.default_rng([part, index])) for index in range(count)]


def band_levels(signal: np.ndarray) -> np.ndarray:
    """Mean and spread over time of 24 logarithmic bands, dB, after adding a floor 50 dB down."""
    frames = np.lib.stride_tricks.sliding_window_view(signal, 1024)[::512] * np.hanning(1024)
    power = np.square(np.abs(np.fft.rfft(frames)))
    edges = np.unique(np.geomspace(4, 513, 25).astype(int))
    bands = 10.0 * np.log10(np.add.reduceat(power, edges[:-1], axis=1) + 1e-5 * power.sum(axis=1).max())
    return np.concatenate([bands.mean(axis=0), bands.std(axis=0)])


def test_there_is_a_generator_for_each_class() -> None:
    assert tuple(GENERATORS) == DESED_CLASSES


@pytest.mark.parametrize("label", DESED_CLASSES)
def test_sounds_are_well_formed_and_all_different(label: str) -> None:
    signals = some(label, 8)
    for signal in signals:
        assert np.isfinite(signal).all()
        part = active_part(signal, SAMPLE_RATE)
        assert part.rms == pytest.approx(1.0, rel=1e-6)
        assert part.first <= 0.02 * SAMPLE_RATE
        assert part.last >= len(signal) - 0.04 * SAMPLE_RATE
        seconds = len(signal) / SAMPLE_RATE
        assert (
            (1.5 if label in LASTING else SHORTEST_SECONDS) - 0.02 <= seconds <= (4.0 if label in IMPULSIVE else 10.0)
        )
        assert abs(signal.mean()) < 0.05
    spectra = np.array([band_levels(signal) for signal in signals])
    distance = np.abs(spectra[:, None] - spectra[None]).mean(axis=2)
    assert distance[~np.eye(len(signals), dtype=bool)].min() > 0.5


@pytest.mark.parametrize("label", ["Dog", "Running_water"])
def test_a_sound_depends_on_its_generator_alone(label: str) -> None:
    first, again, other = (sound(label, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other) or not np.allclose(first, other)


def test_classes_can_be_learned_but_not_looked_up() -> None:
    """A linear classifier on band levels, trained and tested on different individuals."""

    def examples(part: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        features = [band_levels(signal) for label in DESED_CLASSES for signal in some(label, count, part=part)]
        return np.array(features), np.repeat(np.arange(len(DESED_CLASSES)), count)

    train, train_class = examples(1, 12)
    test, test_class = examples(2, 6)
    mean, spread = train.mean(axis=0), train.std(axis=0)
    train, test = ((np.column_stack([(x - mean) / spread, np.ones(len(x))])) for x in (train, test))
    ridge = train.T @ train + 5.0 * np.eye(train.shape[1])
    weights = np.linalg.solve(ridge, train.T @ np.eye(len(DESED_CLASSES))[train_class])
    accuracy = float(np.mean((test @ weights).argmax(axis=1) == test_class))
    assert 0.6 < accuracy < 0.97


def test_machines_hold_a_pitch_and_liquids_do_not() -> None:
    def tonality(signal: np.ndarray) -> float:
        """How far narrow peaks stand above the smoothed spectrum, dB."""
        middle = signal[len(signal) // 3 : len(signal) // 3 + 16384]
        level = 20.0 * np.log10(np.abs(np.fft.rfft(middle * np.hanning(len(middle)))) + 1e-6)[200:-200]
        smooth = np.convolve(level, np.ones(101) / 101.0, mode="same")
        return float(np.percentile(level - smooth, 99.8))

    machines = [tonality(s) for label in ("Blender", "Electric_shaver_toothbrush") for s in some(label, 4)]
    liquids = [tonality(s) for label in ("Frying", "Running_water") for s in some(label, 4)]
    assert np.median(machines) > np.median(liquids) + 4.0


@pytest.mark.parametrize("seed", range(4))
def test_backgrounds_are_steady_ambience(seed: int) -> None:
    signal = background(np.random.default_rng(seed), 3.0)
    assert signal.shape == (3 * SAMPLE_RATE,)
    assert np.sqrt(np.mean(signal**2)) == pytest.approx(1.0, rel=0.05)
    half_seconds = np.sqrt(np.mean(signal.reshape(6, -1) ** 2, axis=1))
    assert half_seconds.min() > 0.02
