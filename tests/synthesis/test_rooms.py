"""Image sources stand where geometry puts them, and responses decay as their room says."""

from __future__ import annotations

import numpy as np
import pytest

from task_aware.synthesis.rooms import (
    LENGTH,
    Room,
    _images,
    impulse_response,
    random_room,
    reverberation_time,
)
from task_aware.synthesis.signals import SAMPLE_RATE

ROOM = Room(np.array([5.0, 4.0, 2.5]), np.full(5, 0.4), np.array([2.0, 1.5, 1.2]))


def test_images_are_the_mirrored_sources() -> None:
    """Sources mirrored wall by wall, up to two reflections, against the closed form."""
    source = np.array([3.5, 3.0, 1.6])
    found = {(0, tuple(source))}
    frontier = set(found)
    for count in (1, 2):
        mirrored = set()
        for _, position in frontier:
            for axis in range(3):
                for wall in (0.0, ROOM.size[axis]):
                    image = list(position)
                    image[axis] = round(2.0 * wall - image[axis], 9)
                    mirrored.add((count, tuple(image)))
        known = {position for _, position in found}
        frontier = {image for image in mirrored if image[1] not in known}
        found |= frontier
    expected = sorted((float(np.linalg.norm(np.array(p) - ROOM.microphone)), count) for count, p in found)

    distances, bounces = _images(ROOM, source, reach=30.0)
    near = bounces <= 2
    actual = sorted(zip(distances[near].tolist(), bounces[near].tolist(), strict=True))
    assert len(actual) == len(expected) == 1 + 6 + 18
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_the_direct_sound_comes_first_and_loudest() -> None:
    for seed in range(6):
        room = random_room(np.random.default_rng(seed))
        response = impulse_response(np.random.default_rng([seed, 1]), room)
        assert response.shape == (LENGTH,)
        assert np.abs(response).argmax() == SAMPLE_RATE // 1000
        assert np.abs(response).max() == pytest.approx(0.95)
        before = np.sum(response[: SAMPLE_RATE // 1000 - 8] ** 2) / np.sum(response**2)
        assert before < 1e-6


def test_responses_decay_in_the_time_of_their_room() -> None:
    for seed in range(6):
        room = random_room(np.random.default_rng(seed))
        measured = reverberation_time(impulse_response(np.random.default_rng([seed, 1]), room))
        assert 0.12 < measured < 0.7
        assert measured == pytest.approx(float(np.median(room.decay)), rel=0.3)


def test_late_reverberation_continues_the_images_without_a_step() -> None:
    steps = []
    for seed in range(8):
        response = impulse_response(np.random.default_rng(seed), ROOM)
        level = 10 * np.log10(np.mean(response[16 + 400 : 16 + 1360].reshape(6, 160) ** 2, axis=1))
        steps.append(np.diff(level))
    expected = -60.0 * 0.01 / 0.4
    np.testing.assert_allclose(np.mean(steps, axis=0), expected, atol=3.0)


def test_reverberation_time_of_an_exact_decay() -> None:
    time = np.arange(LENGTH) / SAMPLE_RATE
    assert reverberation_time(np.exp(-np.log(1000.0) * time / 0.3)) == pytest.approx(0.3, rel=0.01)


def test_positions_of_one_room_differ() -> None:
    first, second = (impulse_response(np.random.default_rng(seed), ROOM) for seed in (0, 1))
    assert np.corrcoef(first, second)[0, 1] < 0.95
