"""The Python interface: waveforms, batches, and what of a result depends on windows."""

import pickle

import numpy as np
import pytest
import torch
from data.recordings import burst, write

from task_aware import Predictor
from task_aware.data.audio import read_audio
from task_aware.data.desed import Clip, Split, read_split
from task_aware.data.offset import remove_offset
from task_aware.models.copies import listening_copy
from task_aware.models.opening import BUILTIN_SEPARATOR
from task_aware.scoring.evaluation import DETECTOR_ONLY, SEPARATED, detect_split


def waveform(seconds: float, rate: int = 16000) -> np.ndarray:
    return np.random.default_rng(int(seconds * 1000)).uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)


@pytest.fixture
def predictor(small_separator) -> Predictor:
    return Predictor(small_separator, device="cpu", window_seconds=2.0, overlap_seconds=0.5)


@pytest.fixture(scope="module")
def builtin() -> Predictor:
    return Predictor(BUILTIN_SEPARATOR, device="cpu")


@pytest.fixture(scope="module")
def clips(tiny_corpus) -> Split:
    return read_split(tiny_corpus, "validation")


def test_a_recording_of_one_window_is_what_evaluate_detects(builtin, clips):
    detections = detect_split(builtin.model, clips, device=torch.device("cpu"), progress=False)
    assert any(detections[SEPARATED].values())
    for clip in clips.clips:
        assert builtin.detect(read_audio(clip.path), 16000) == detections[SEPARATED][clip.filename]


def test_so_is_that_of_a_detector_alone(small_detector, tmp_path):
    path = write(tmp_path / "clip.wav", waveform(5.03))
    split = Split("one", (Clip(path, None, None, "clip"),), (), tmp_path)
    expected = detect_split(small_detector, split, device=torch.device("cpu"), progress=False)[DETECTOR_ONLY]["clip"]
    found = Predictor(small_detector, device="cpu").detect(read_audio(path), 16000)
    assert found == expected and len(found) > 2


def test_scores_depend_little_on_where_windows_begin(builtin, clips):
    """The tolerance of docs/inference.md: 0.02 on average, here over a minute of clips set end to end."""
    samples = np.concatenate([read_audio(clip.path) for clip in (*clips.clips, *clips.clips)][:6])
    assert len(samples) == 60 * 16000
    scores = builtin.analyse_waveform(samples, 16000).scores
    step = round(builtin.detector.frame_seconds * 16000)
    for shift in (31, 57):
        shifted = builtin.analyse_waveform(samples[shift * step :], 16000).scores
        difference = np.abs(scores[shift : shift + len(shifted)] - shifted)[80:-80]
        assert 0 < difference.mean() < 0.02
        assert np.quantile(difference, 0.99) < 0.25


def test_features_without_memory_or_maximum_do_not_depend_on_windows(small_separator):
    """A detector that looks at single frames answers alike in every window: no seam is left."""

    class FrameWise(torch.nn.Module):
        def __init__(self, like):
            super().__init__()
            self.labels, self.feature_config, self.frame_seconds = like.labels, like.feature_config, 0.02
            self.register_buffer("mean", like.mean.clone())
            self.register_buffer("std", like.std.clone())

        def forward(self, features):
            from task_aware.models.detector import Detection

            frame = torch.sigmoid(features.transpose(1, 2)[..., : len(self.labels)])
            return Detection(frame, frame.amax(1), [])

    detector = FrameWise(small_separator.detector)
    samples = waveform(11.3)
    whole = Predictor(detector, window_seconds=20.0).analyse_waveform(samples, 16000).scores
    cut = Predictor(detector, window_seconds=2.0, overlap_seconds=0.5).analyse_waveform(samples, 16000).scores
    np.testing.assert_allclose(cut, whole, atol=1e-5)


def test_batches_change_nothing(small_separator):
    samples = waveform(9.0)
    alone, together = (
        Predictor(small_separator, device="cpu", window_seconds=2.0, overlap_seconds=0.5, batch_size=size)
        for size in (1, 4)
    )
    np.testing.assert_allclose(
        alone.analyse_waveform(samples, 16000).scores, together.analyse_waveform(samples, 16000).scores, atol=1e-5
    )


def test_channels_rates_and_tensors(predictor):
    samples = waveform(3.0)
    events = predictor.detect(samples, 16000)
    assert events and events[-1].offset <= 3.0
    assert predictor.detect(np.stack([samples, samples]), 16000) == events
    assert predictor.detect(torch.from_numpy(samples).requires_grad_(), 16000) == events
    assert predictor.detect(samples.astype(np.float64), 16000) == events
    half_rate = predictor.separate(torch.from_numpy(waveform(3.01, 8000)), 8000)
    assert half_rate.shape == (3, 24080) and isinstance(half_rate, torch.Tensor)
    assert predictor.separate(waveform(2.003, 44100)[None], 44100).shape == (3, round(2.003 * 44100))


@pytest.mark.parametrize("seconds", [1.5, 7.3])
def test_sources_sum_to_the_mixture_where_masks_do(predictor, monkeypatch, seconds):
    model = predictor.separator
    separate = model.separate

    def with_masks_of_sum_one(mel, **_):
        found = separate(mel)
        return found._replace(mel=found.mel / found.mel.sum(1, keepdim=True).clamp_min(1e-12) * mel[:, None])

    monkeypatch.setattr(model, "separate", with_masks_of_sum_one)
    samples = waveform(seconds)
    sources = predictor.separate(samples, 16000)
    assert sources.shape == (3, len(samples))
    np.testing.assert_allclose(sources.sum(0), remove_offset(samples, 16000), atol=2e-5)
    assert np.abs(sources[0] - samples / 3).max() > 0.01  # and are not all the same


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 3, 4)), r"waveform has the shape \[2, 3, 4\]"),
        (np.zeros(0), r"waveform has the shape \[0\]"),
        (np.full(16000, np.nan), "must be finite"),
        (np.full(16000, 3e38), r"reaches 3e\+38, but full scale is 1"),
        (np.full(16000, 1e300), "must be finite"),
        (np.array([[1e38], [-1e38]]).repeat(8000, 1), r"reaches 1e\+38"),
        (np.full(16000, 20000.0, np.float32), "divide samples that were integers"),
        (np.zeros(16000, np.int64), "waveform is of type int64; give an array of floats"),
        (np.zeros(16000, bool), "waveform is of type bool"),
        (np.zeros(16000, complex), "waveform is of type complex128"),
        (b"RIFF", "waveform is of type bytes"),
        (None, "waveform is of type NoneType"),
        (np.zeros((16000, 2)), r"shape \[16000, 2\], which looks like \[N, channels\]; transpose it"),
        (np.zeros((16000, 1), np.int16), r"looks like \[N, channels\]"),
        (np.zeros(100), "too few for one output frame"),
    ],
)
def test_waveforms_that_are_none(predictor, samples, message):
    with pytest.raises(ValueError, match=message):
        predictor.detect(samples, 16000)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", ">i2", "int32"])
def test_integer_samples_have_the_full_scale_of_their_type(predictor, dtype):
    limits = np.iinfo(dtype)
    scale, silence = (limits.max - limits.min + 1) / 2, 128 if limits.min == 0 else 0
    integers = np.round(waveform(2.5).astype(np.float64) * scale + silence).astype(dtype)
    floats = ((integers.astype(np.float64) - silence) / scale).astype(np.float32)
    expected = predictor.analyse_waveform(floats, 16000).scores
    np.testing.assert_array_equal(predictor.analyse_waveform(integers, 16000).scores, expected)
    np.testing.assert_array_equal(predictor.analyse_waveform(np.stack([integers] * 2), 16000).scores, expected)
    if dtype != ">i2":
        np.testing.assert_array_equal(predictor.analyse_waveform(torch.from_numpy(integers), 16000).scores, expected)
    sources = predictor.separate(integers, 16000)
    assert sources.dtype == np.float32 and np.abs(sources).max() < 2


@pytest.mark.parametrize("rate", [None, 0, -16000, 16000.5, float("nan"), "16000 Hz"])
def test_sample_rates_that_are_none(predictor, rate):
    with pytest.raises(ValueError, match="give a whole number of Hz"):
        predictor.detect(waveform(1.0), rate)


def test_the_model_that_is_given_stays_as_it_is(small_separator):
    """Its mode, rule of merging, device and weights, which the predictor shares if they need not move."""
    small_separator.train()
    modes = {name: module.training for name, module in small_separator.named_modules()}
    predictor = Predictor(small_separator, device="cpu", merge="max")
    assert predictor.detect(waveform(2.0), 16000)
    assert modes == {name: module.training for name, module in small_separator.named_modules()}
    assert small_separator.merge == "average" and predictor.separator.merge == "max"
    assert all(a is b for a, b in zip(small_separator.parameters(), predictor.model.parameters(), strict=True))
    moved = listening_copy(small_separator, torch.device("meta"))
    assert {x.device.type for x in moved.parameters()} == {"meta"}
    assert {x.device.type for x in small_separator.parameters()} == {"cpu"}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_layers_that_compute_their_weights_can_be_copied(device):
    model = torch.nn.Sequential(torch.nn.utils.weight_norm(torch.nn.Linear(3, 2)), torch.nn.Dropout(0.5))
    copied = listening_copy(model, torch.device(device))
    assert not copied.training and model.training
    answer = copied(torch.ones(1, 3, device=device))
    assert answer.device.type == device
    if device == "cpu":
        torch.testing.assert_close(answer, model[0](torch.ones(1, 3)))


def test_a_detector_that_answers_nan_is_a_sentence(small_detector):
    predictor = Predictor(small_detector, device="cpu")
    with torch.no_grad():
        predictor.detector.mean.fill_(float("nan"))
    with pytest.raises(ValueError, match="the detector answers NaN"):
        predictor.detect(waveform(1.0), 16000)
    found = predictor({"waveform": [waveform(1.0)], "sample_rate": [16000]})
    assert "the detector answers NaN" in found["error"][0]


def test_a_detector_separates_nothing(small_detector):
    predictor = Predictor(small_detector)
    with pytest.raises(ValueError, match="needs a separator"):
        predictor.separate(waveform(1.0), 16000)
    with pytest.raises(ValueError, match="needs a separator"):
        Predictor(small_detector, merge="max")
    assert predictor.n_sources == 0


def test_options_reach_the_result(small_separator):
    samples = waveform(4.0)
    plain = Predictor(small_separator).detect(samples, 16000)
    assert Predictor(small_separator, threshold=1.0).detect(samples, 16000) == []
    assert Predictor(small_separator, median_frames=25).detect(samples, 16000) != plain
    averaged = Predictor(small_separator, merge="average").analyse_waveform(samples, 16000).scores
    largest = Predictor(small_separator, merge="noisy_or").analyse_waveform(samples, 16000).scores
    assert np.abs(averaged - largest).max() > 1e-3


def test_bfloat16_is_close(small_separator):
    samples = waveform(4.0)
    exact, short = (
        Predictor(small_separator, device="cpu", precision=precision).analyse_waveform(samples, 16000).scores
        for precision in ("32-true", "bf16-mixed")
    )
    assert 0 < np.abs(exact - short).max() < 0.1


class TestBatches:
    def test_paths_among_them_broken_ones(self, predictor, tmp_path):
        good = [str(write(tmp_path / f"{k}.wav", burst(1.0 + 2 * k, seed=k))) for k in range(3)]
        paths = np.array([good[0], str(tmp_path / "absent.wav"), *good[1:]])
        found = predictor({"path": paths, "id": np.arange(4)})
        assert set(found) == {"path", "id", "events", "error"}
        assert [bool(error) for error in found["error"]] == [False, True, False, False]
        assert "absent.wav is not a file" in found["error"][1] and found["events"][1] == []
        for path, events in zip(paths[[0, 2, 3]], found["events"][[0, 2, 3]], strict=True):
            expected = predictor.detect(read_audio(path), 16000)
            assert events == [{"onset": e.onset, "offset": e.offset, "event_label": e.label} for e in expected]
        assert any(found["events"])

    def test_waveforms_of_several_rates(self, predictor):
        rows = [waveform(2.0), waveform(3.0, 8000), np.zeros((2, 2, 2))]
        found = predictor({"waveform": rows, "sample_rate": np.array([16000, 8000, 16000])})
        assert len(found["events"][0]) == len(predictor.detect(rows[0], 16000))
        assert len(found["events"][1]) == len(predictor.detect(rows[1], 8000))
        assert "waveform" not in found and "has the shape" in found["error"][2]

    def test_a_row_that_is_none_ends_no_batch(self, predictor, tmp_path):
        good = str(write(tmp_path / "a.wav", burst(2.0)))
        broken = [None, float("nan"), good.encode(), 7, "\0", "x" * 5000, str(write(tmp_path / "b.wav", burst(0.001)))]
        found = predictor({"path": np.array([good, *broken, good], dtype=object)})
        assert [bool(error) for error in found["error"]] == [False, *[True] * len(broken), False]
        assert found["events"][0] == found["events"][-1] != []
        assert "path is of type NoneType" in found["error"][1]

        rows = [waveform(2.0), None, float("nan"), b"abc", np.full(16000, 3e38), [[0.0], [0.0, 1.0]], waveform(2.0)]
        found = predictor({"waveform": rows, "sample_rate": [16000] * len(rows)})
        assert [bool(error) for error in found["error"]] == [False, *[True] * 5, False]
        found = predictor({"waveform": [waveform(2.0)] * 4, "sample_rate": [16000, None, float("nan"), 0]})
        assert [bool(error) for error in found["error"]] == [False, True, True, True]
        with pytest.raises(ValueError, match="the batch has 4 waveforms, but 1 sample rates"):
            predictor({"waveform": [waveform(2.0)] * 4, "sample_rate": [16000]})

    def test_columns_that_are_missing(self, predictor):
        with pytest.raises(ValueError, match="the batch has the columns file; expected path"):
            predictor({"file": []})

    def test_a_pickled_predictor_does_the_same(self, predictor, tmp_path):
        batch = {"path": np.array([str(write(tmp_path / "a.wav", burst(3.0)))])}
        copy = pickle.loads(pickle.dumps(predictor))
        assert copy(batch)["events"].tolist() == predictor(batch)["events"].tolist() != [[]]

    def test_ray_maps_batches(self, predictor, tmp_path):
        ray = pytest.importorskip("ray", reason="ray is not installed")
        paths = [{"path": str(write(tmp_path / f"{k}.wav", burst(2.0, seed=k)))} for k in range(4)]
        rows = ray.data.from_items(paths).map_batches(predictor, batch_size=2).take_all()
        assert len(rows) == 4 and not any(row["error"] for row in rows)


@pytest.mark.parametrize(("precision", "fast"), [("bf16-mixed", False), ("bf16-mixed", True), ("32-true", False)])
def test_bfloat16_without_instructions_for_it_is_said_to_be_slow(small_detector, monkeypatch, caplog, precision, fast):
    monkeypatch.setattr("task_aware.models.precision.computes_in_bfloat16", lambda: fast)
    Predictor(small_detector, device="cpu", precision=precision)
    assert ("no instructions for bfloat16" in caplog.text) == (precision == "bf16-mixed" and not fast)


def test_a_copy_of_what_has_detected_hears_with_its_present_weights(small_detector):
    predictor = Predictor(small_detector, device="cpu")
    predictor.detect(np.zeros(32000, dtype=np.float32), 16000)
    features = torch.randn(1, 32, 40)
    with torch.no_grad():
        for weight in predictor.model.parameters():  # which are those of `small_detector`
            weight.mul_(1.5)
        copied = listening_copy(predictor.model)
        torch.testing.assert_close(copied(features).frame, small_detector.eval()(features).frame, rtol=0, atol=0)
