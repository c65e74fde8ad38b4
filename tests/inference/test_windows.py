"""Windows show the features of the whole recording, and their answers join without a seam."""

import tracemalloc

import numpy as np
import pytest
import torch

from task_aware.base.errors import RecordingError
from task_aware.inference.joining import Answer, Join, OverlapAdd, Track
from task_aware.inference.windows import Window, Windowing


@pytest.fixture
def windowing(small_detector) -> Windowing:
    return Windowing.of(small_detector, 2.0, 0.5)


def noise(n_samples: int) -> np.ndarray:
    return np.random.default_rng(n_samples).uniform(-0.5, 0.5, n_samples).astype(np.float32)


def blocks(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[i : i + size] for i in range(0, len(samples), size)]


@pytest.mark.parametrize("size", [700, 20000, 10**6])
@pytest.mark.parametrize("n_samples", [600 + 320 * 3, 31999, 32000, 32001, 32320, 33600, 40000, 60000, 123456])
def test_features_of_windows_are_those_of_the_recording(small_detector, windowing, n_samples, size):
    front_end = small_detector.feature_config
    samples = noise(n_samples)
    whole = front_end.mel(torch.from_numpy(samples), backend="reference")
    windows = list(windowing.cut(blocks(samples, size)))
    assert [window.last for window in windows] == [False] * (len(windows) - 1) + [True]
    assert windows[-1].stop == n_samples
    end = 0
    for window in windows:
        mel = front_end.mel(torch.from_numpy(window.samples), backend="reference")
        if window.lead:
            mel = mel[:, window.lead // front_end.hop :][:, : windowing.n_frames]
        assert window.first % windowing.pooling == 0
        assert window.first <= max(0, end - windowing.overlap)  # shares at least the overlap with the one before
        end = window.first + mel.shape[1]
        torch.testing.assert_close(mel, whole[:, window.first : end], rtol=0, atol=1e-6)
    output_frames = front_end.n_frames(n_samples) // windowing.pooling
    assert end // windowing.pooling == output_frames
    assert len({len(window.samples) for window in windows}) == 1  # so that they fit into batches


def test_a_recording_that_fits_is_one_window_as_it_is(windowing):
    samples = noise(windowing.n_frames * windowing.hop - 1)
    (window,) = windowing.cut([samples])
    assert window.lead == 0 and window.last and np.array_equal(window.samples, samples)
    assert len(list(windowing.cut([noise(len(samples) + 1)]))) == 1 + (windowing.pooling == 1)
    assert len(list(windowing.cut([noise(len(samples) + windowing.pooling * windowing.hop)]))) == 2


@pytest.mark.parametrize("n_samples", [1, 256, 900])
def test_too_short_for_a_frame(windowing, n_samples):
    with pytest.raises(RecordingError, match=f"clip.wav has {n_samples} samples"):
        list(windowing.cut([noise(n_samples)], "clip.wav"))


@pytest.mark.parametrize(
    ("seconds", "overlap", "message"),
    [(2.0, 1.1, "cannot overlap by 1.1 s"), (2.0, -1.0, "cannot overlap"), (0.03, 0.0, "too short for this detector")],
)
def test_impossible_windows(small_detector, seconds, overlap, message):
    with pytest.raises(ValueError, match=message):
        Windowing.of(small_detector, seconds, overlap)


def test_a_grid_that_does_not_fit(small_detector):
    small_detector.frame_seconds = 0.05
    with pytest.raises(ValueError, match="not a multiple of its feature frames"):
        Windowing.of(small_detector, 2.0, 0.5)


def test_memory_is_that_of_a_few_windows(windowing):
    samples = noise(16000)
    tracemalloc.start()
    try:
        n_windows = sum(1 for _ in windowing.cut(samples for _ in range(1800)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    hop_seconds = (windowing.n_frames - windowing.overlap) * windowing.hop / 16000
    assert n_windows == pytest.approx(1800 / hop_seconds, abs=2)
    assert peak < 2e6  # half an hour is 115 MB


class TestOverlapAdd:
    def test_a_single_piece_comes_out_as_it_went_in(self):
        piece = noise(100)
        join = OverlapAdd(20)
        assert join.add(0, piece).size == 0
        assert np.array_equal(join.finish(), piece)

    def test_pieces_of_one_signal_join_to_it(self):
        signal = noise(1000).reshape(2, 500)
        join = OverlapAdd(25)
        begins = [0, 75, 150, 225, 300, 375, 400]
        parts = [join.add(begin, signal[:, begin : begin + 100]) for begin in begins]
        parts.append(join.finish())
        assert [part.shape[1] for part in parts] == [0, *np.diff(begins), 100]
        np.testing.assert_allclose(np.concatenate(parts, axis=-1), signal, atol=1e-6)

    def test_pieces_that_differ_fade_into_each_other(self):
        join = OverlapAdd(9)
        join.add(0, np.zeros(50))
        joined = np.concatenate([join.add(41, np.ones(50)), join.finish()])
        assert (joined[:41] == 0).all() and (joined[50:] == 1).all()
        np.testing.assert_allclose(joined[41:50], np.arange(1, 10) / 10, atol=1e-6)


def test_a_track_grows_piece_by_piece():
    pieces = [np.random.default_rng(n).random((2, 3, n), dtype=np.float32) for n in (0, 5, 3000, 1, 0, 9000, 7)]
    track = Track()
    for piece in pieces:
        track.append(piece)
    assert np.array_equal(track.array(), np.concatenate(pieces, axis=-1))


@pytest.mark.parametrize(
    ("n_sources", "order", "slots"), [(3, [2, 0, 1], None), (6, [0, 1, 3, 2, 5, 4], 2), (3, [0, 1, 2], 1)]
)
def test_sources_keep_their_order_across_windows(windowing, n_sources, order, slots):
    """The network may number them differently in the next window; sources of classes only within a class."""
    n_frames, n_shared, hop = windowing.n_frames, windowing.overlap, windowing.hop
    mel = torch.rand(n_sources, 4, 2 * n_frames - n_shared, generator=torch.Generator().manual_seed(0))
    length = (2 * n_frames - n_shared) * hop
    waveform = np.arange(n_sources)[:, None] * np.ones((n_sources, length), dtype=np.float32)
    begin = n_frames - n_shared
    frame = np.zeros((2, n_frames // windowing.pooling), dtype=np.float32)
    first = Window(np.empty(0), 0, 0, n_frames * hop, last=False)
    second = Window(np.empty(0), 0, begin, waveform.shape[1], last=True)
    join = Join(windowing, slots=slots)
    heard = np.arange(n_sources) / 10
    parts = join.add(Answer(first, frame, waveform[:, : n_frames * hop], mel[..., :n_frames], heard=heard))
    louder = heard + 0.1 * (heard > 0.1)
    parts += join.add(
        Answer(second, frame, waveform[order, begin * hop :], mel[order][..., begin:], heard=louder[order])
    )
    np.testing.assert_allclose(np.concatenate(parts, axis=-1), waveform, atol=1e-5)
    np.testing.assert_allclose(join.heard, louder)
    assert join.scores()[0].shape == (waveform.shape[1] // hop // windowing.pooling, 2)
