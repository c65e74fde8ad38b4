"""A stream gives what the whole signal gives, whatever its chunks, and no later than it says."""

import ctypes
import dataclasses
import gc
from itertools import pairwise

import numpy as np
import pytest
import torch

from task_aware import LiveDetector
from task_aware.data.labels import DESED_CLASSES, Event
from task_aware.data.offset import remove_offset
from task_aware.inference.live import EventStream, FrameStream
from task_aware.models.crnn import CRNN
from task_aware.models.decoding import decode
from task_aware.models.denoiser import PRESETS as DENOISERS
from task_aware.models.denoiser import DenoisedDetector, Denoiser, DenoiserConfig
from task_aware.models.opening import BUILTIN_SEPARATOR
from task_aware.models.separator import MaskNetwork
from task_aware.models.system import Separator
from task_aware.scoring.evaluation import frame_probabilities

RATE = 16000
HOP = 320


def signal(n_samples: int, seed: int = 0) -> np.ndarray:
    """Noise that waxes and wanes, with digital silence in between."""
    noise = np.random.default_rng(seed).uniform(-0.7, 0.7, n_samples)
    return (noise * np.sin(np.arange(n_samples) / 2000).clip(0)).astype(np.float32)


def chunks_of(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[begin : begin + size] for begin in range(0, len(samples), size)]


class MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]


def allocated() -> int:
    """Bytes that the process has from glibc's malloc."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, TypeError, OSError):
        pytest.skip("only glibc 2.33 and later tell how much memory is allocated")
    mallinfo.restype = MallocInfo
    info = mallinfo()
    return info.hblkhd + info.uordblks


def whole(model: torch.nn.Module, samples: np.ndarray) -> np.ndarray:
    """Probabilities of the whole signal at once `[T', C]`."""
    with torch.no_grad():
        return list(frame_probabilities(model, torch.from_numpy(samples)[None], "auto").values())[-1][0].numpy()


def decoded(live: LiveDetector, frame: np.ndarray, samples: np.ndarray) -> list[Event]:
    """The events of the whole signal at once."""
    return decode(
        frame,
        DESED_CLASSES,
        live.detector.frame_seconds,
        threshold=live.threshold,
        median_frames=live.median_frames,
        duration=len(samples) / RATE,
    )


def listen(live: LiveDetector, chunks: list[np.ndarray]) -> tuple[list[Event], list[float]]:
    """The events of a stream, and of those before its end how long after their offsets they came, seconds."""
    events, delays, n_samples = [], [], 0
    for chunk in chunks:
        found = live.push(chunk)
        n_samples += len(chunk)
        events += found
        delays += [n_samples / RATE - event.offset for event in found]
    return events + live.flush(), delays


@pytest.fixture(params=["detector", "separator", "class_separator"])
def model(request) -> torch.nn.Module:
    return request.getfixturevalue(f"causal_{request.param}")


@pytest.mark.parametrize("size", [1, 77, HOP, 4 * HOP, 5001, 10**6])
def test_chunks_of_any_size_give_what_the_whole_signal_gives(model, size):
    samples = signal(8000 if size == 1 else 50123)
    frame = whole(model, samples)
    stream = FrameStream(model)
    parts = [stream.push(chunk) for chunk in chunks_of(samples, size)]
    np.testing.assert_allclose(np.concatenate([*parts, stream.push(samples[:0], last=True)]), frame, atol=1e-5)
    live = LiveDetector(model, threshold=0.4)
    events, _ = listen(live, chunks_of(samples, size))
    frame = whole(model, remove_offset(samples, RATE))
    assert sorted(events, key=lambda event: (event.onset, event.label)) == decoded(live, frame, samples)
    assert [event.offset for event in events] == sorted(event.offset for event in events)
    assert len(events) > 2


def test_a_stream_hears_the_larger_slot_of_a_class(causal_slotted_separator, causal_class_separator):
    model, samples = causal_slotted_separator, signal(20000)
    stream = FrameStream(model)
    parts = [stream.push(chunk) for chunk in chunks_of(samples, 3000)]
    found = np.concatenate([*parts, stream.push(samples[:0], last=True)])
    np.testing.assert_allclose(found, whole(model, samples), atol=1e-5)
    assert not np.allclose(found, whole(causal_class_separator, samples), atol=1e-3)


def test_a_long_chunk_is_heard_in_parts(causal_separator, monkeypatch):
    samples = signal(40000)
    monkeypatch.setattr("task_aware.inference.live.MOST_FRAMES", 3)
    np.testing.assert_allclose(
        FrameStream(causal_separator).push(samples), whole(causal_separator, samples)[:29], atol=1e-5
    )


@pytest.mark.parametrize("merge", ["max", "average", "noisy_or", "mean"])
def test_every_rule_of_merging(causal_separator, merge):
    causal_separator.merge = merge
    samples = signal(20000)
    stream = FrameStream(causal_separator)
    parts = [stream.push(chunk, last=len(chunk) < 3000) for chunk in chunks_of(samples, 3000)]
    np.testing.assert_allclose(np.concatenate(parts), whole(causal_separator, samples), atol=1e-5)


@pytest.mark.parametrize("n_samples", [257, 959, 960, 1280, 4 * HOP * 5, 4 * HOP * 5 - 1])
def test_signals_that_end_anywhere(causal_detector, n_samples):
    samples = signal(n_samples, seed=1) + np.float32(0.1)
    live = LiveDetector(causal_detector, threshold=0.3)
    events, _ = listen(live, chunks_of(samples, 100))
    frame = whole(causal_detector, remove_offset(samples, RATE)) if n_samples // HOP + 1 >= 4 else np.empty((0, 10))
    assert sorted(events, key=lambda event: (event.onset, event.label)) == decoded(live, frame, samples)
    assert bool(events) == (len(frame) > 0)


@pytest.mark.parametrize("samples", [np.empty(0, np.float32), np.ones(1, np.float32), np.ones(256, np.float32)])
def test_streams_of_no_frame_have_no_events(model, samples):
    assert listen(LiveDetector(model, threshold=0.01), [samples]) == ([], [])


def test_silence_is_what_it_is_offline(model):
    samples = np.zeros(30000, dtype=np.float32)
    frame = whole(model, samples)
    live = LiveDetector(model, threshold=float(np.quantile(frame, 0.8)) - 1e-4)
    events, _ = listen(live, chunks_of(samples, 1000))
    assert sorted(events, key=lambda event: (event.onset, event.label)) == decoded(live, frame, samples) != []


@pytest.mark.parametrize("median_frames", [1, 4, 7])
def test_the_delay_is_reached_and_not_passed(causal_detector, median_frames):
    live = LiveDetector(causal_detector, threshold=0.6, median_frames=median_frames)
    ahead = (median_frames - 1) // 2
    assert live.delay_seconds == pytest.approx((4 * (2 + ahead + 1) * 320 - 320 + 256 + 1) / RATE)
    _, delays = listen(live, chunks_of(signal(16000), 1))
    assert delays == pytest.approx([live.delay_seconds] * len(delays)) and delays
    _, delays = listen(live, chunks_of(signal(50123), 1000))
    assert max(delays) < live.delay_seconds + 1000 / RATE


@pytest.mark.parametrize("median_frames", [1, 2, 5, 8, 41])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_events_of_any_probabilities(median_frames, size):
    frame = np.random.default_rng(median_frames).random((60, 3)).repeat(2, axis=0)[:61]
    stream = EventStream("abc", 0.08, 0.5, median_frames)
    events = [event for part in range(0, 61, size) for event in stream.push(frame[part : part + size])]
    events += stream.push(frame[:0], duration=4.85)
    expected = decode(frame, "abc", 0.08, median_frames=median_frames, duration=4.85)
    assert sorted(events, key=lambda event: (event.onset, event.label)) == expected != []


def test_streams_do_not_hear_each_other(model):
    """One model in two streams at a time, then for a second stream, then for a whole signal."""
    samples, other = signal(20000), signal(20000, seed=1)
    alone, _ = listen(LiveDetector(model), chunks_of(samples, 500))
    first, second = LiveDetector(model), LiveDetector(model)
    events = []
    for mine, theirs in zip(chunks_of(samples, 500), chunks_of(other, 500), strict=True):
        events += first.push(mine)
        second.push(theirs)
    assert events + first.flush() == alone != []
    assert listen(first, chunks_of(samples, 900))[0] == alone
    parameters = dict(model.named_parameters())
    for name, parameter in FrameStream(model).model.named_parameters():
        assert parameter is parameters[name]
    before = whole(model, samples)
    np.testing.assert_array_equal(whole(model, samples), before)


def test_a_model_that_is_not_causal_is_refused(small_separator, causal_separator, small_detector):
    with pytest.raises(ValueError, match=r"separator.causal.*crnn.causal.*features.top_db.*--config causal_builtin"):
        LiveDetector(BUILTIN_SEPARATOR)
    with pytest.raises(ValueError, match=r"this model cannot process a stream: its detector is not a causal CRNN"):
        LiveDetector(small_detector)
    clamped = dataclasses.replace(causal_separator.detector.feature_config, top_db=200.0)
    with pytest.raises(ValueError, match=r"stream: its features depend on the maximum"):
        LiveDetector(CRNN(causal_separator.detector.config, DESED_CLASSES, clamped))
    ahead = MaskNetwork(dataclasses.replace(causal_separator.mask_network.config, causal=False))
    with pytest.raises(ValueError, match=r"stream: its mask network looks ahead"):
        LiveDetector(Separator(ahead, causal_separator.detector))
    denoiser = Denoiser(DenoiserConfig(**DENOISERS["small"]))
    with pytest.raises(ValueError, match=r"stream: its denoiser looks ahead"):
        LiveDetector(DenoisedDetector(denoiser, causal_separator.detector))


def test_chunks_that_are_none(causal_detector):
    live = LiveDetector(causal_detector)
    with pytest.raises(ValueError, match=r"the chunk has the shape \[2, 100\]"):
        live.push(np.zeros((2, 100)))
    with pytest.raises(ValueError, match="must be finite"):
        live.push(np.full(3, np.nan))
    with pytest.raises(ValueError, match="median_frames is 0"):
        LiveDetector(causal_detector, median_frames=0)
    samples = signal(20000)
    assert listen(live, [torch.from_numpy(samples)])[0] == listen(live, [samples.astype(np.float64)])[0] != []


def test_integer_samples_are_heard_as_floats_are(causal_detector):
    integers = np.round(signal(20000) * 32767).astype(np.int16)
    frame = whole(causal_detector, (integers / 32768).astype(np.float32))
    live = LiveDetector(causal_detector, threshold=0.4)
    events, _ = listen(live, chunks_of(integers, 3000))
    assert sorted(events, key=lambda event: (event.onset, event.label)) == decoded(live, frame, integers) != []


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.full(100, 3e38), r"the chunk reaches 3e\+38, but full scale is 1"),
        (np.zeros((100, 2)), r"the chunk has the shape \[100, 2\]; expected \[n\], a single channel: average"),
        (np.zeros(100, np.int64), "the chunk is of type int64"),
    ],
)
def test_a_chunk_that_is_refused_leaves_the_stream_as_it_was(causal_detector, samples, message):
    chunks = chunks_of(signal(20000), 5000)
    expected, _ = listen(LiveDetector(causal_detector, threshold=0.4), chunks)
    live = LiveDetector(causal_detector, threshold=0.4)
    events = live.push(chunks[0])
    with pytest.raises(ValueError, match=message):
        live.push(samples)
    rest, _ = listen(live, chunks[1:])
    assert events + rest == expected != []


def test_the_model_of_a_stream_stays_as_it_is(causal_separator):
    causal_separator.train()
    modes = [module.training for module in causal_separator.modules()]
    listen(LiveDetector(causal_separator), [signal(5000)])
    assert modes == [module.training for module in causal_separator.modules()]


def test_a_stream_keeps_no_more_the_longer_it_lasts(model):
    """All that the C library has given out and not got back, which holds the memory of tensors and arrays."""
    live, chunks = LiveDetector(model), chunks_of(signal(20 * 1600), 1600)

    def push(n_chunks: int) -> int:
        for k in range(n_chunks):
            live.push(chunks[k % len(chunks)])
        gc.collect()
        return allocated()

    held = [push(40), *(push(100) for _ in range(3))]
    # What a chunk leaves is left in every round; a buffer that torch makes once and keeps, in one.
    assert min(after - before for before, after in pairwise(held)) < 100 * 64, "each chunk leaves memory behind"
