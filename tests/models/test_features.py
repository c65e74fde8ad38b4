from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from task_aware.models.features import FeatureConfig
from task_aware.ops import _extension


def test_ten_seconds_are_628_frames_and_output_steps_64_ms():
    config = FeatureConfig()
    assert config.n_frames(160_000) == 628
    assert 4 * config.frame_seconds == pytest.approx(0.06375)
    assert config.mel(torch.zeros(1, 160_000), backend="reference").shape == (1, 128, 628)


def test_log_mel_is_decibel_within_the_range_of_each_clip():
    config = FeatureConfig(n_mels=2)
    mel = torch.tensor([[[1.0, 10.0], [0.0, 1e-3]], [[1e-6, 0.0], [0.0, 0.0]]])
    expected = torch.tensor([[[0.0, 20.0], [-60.0, -60.0]], [[-100.0, -100.0], [-100.0, -100.0]]])
    torch.testing.assert_close(config.log_mel(mel), expected)


def test_scaling_standardises_each_band():
    config = FeatureConfig(n_mels=2)
    scaled = config.scale(torch.tensor([[1.0, 3.0], [4.0, 4.0]]), torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))
    assert scaled.tolist() == [[0.0, 1.0], [0.5, 0.5]]


@pytest.mark.parametrize("options", [{"hop": 0}, {"f_max": 9000.0}, {"f_min": 8000.0}, {"n_mels": 0}])
def test_impossible_front_ends_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        FeatureConfig(**options)


def signals(minidesed: Path | None) -> Iterator[tuple[str, np.ndarray]]:
    """Names and float32 samples at 16 kHz: the corners of the front end, and every thirtieth of the recordings."""
    time = np.arange(16000) / 16000
    yield "silence", np.zeros(16000, np.float32)
    yield "clipping", np.clip(3 * np.sin(2 * np.pi * 440 * time), -1, 1).astype(np.float32)
    yield "click", np.eye(1, 16000, 8000, dtype=np.float32)[0]
    if minidesed is None:
        return
    for path in sorted((minidesed / "audio").rglob("*.flac"))[::30]:
        samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
        if len(samples) > 1024:
            yield path.name, samples.mean(1)


@pytest.mark.skipif(not _extension.extension.cpu, reason="no CPU kernels")
@pytest.mark.parametrize("recordings", [False, True], ids=["synthetic", "recordings"])
def test_features_are_librosas_to_a_ten_thousandth_of_a_decibel(recordings, request):
    """Also 80 dB below the loudest, where a transform in float32 is five times as far away."""
    librosa = pytest.importorskip("librosa")
    config = FeatureConfig()
    bank = librosa.filters.mel(sr=16000, n_fft=2048, n_mels=128, fmin=0, fmax=8000, norm=None, dtype=np.float64)
    tested = 0
    for name, samples in signals(request.getfixturevalue("minidesed") if recordings else None):
        spectrum = librosa.stft(samples.astype(np.float64), n_fft=2048, hop_length=255, window=np.hamming(2048),
                                pad_mode="reflect")  # fmt: skip
        expected = librosa.amplitude_to_db(bank @ np.abs(spectrum), ref=1.0, amin=1e-5, top_db=80)
        found = config.log_mel(config.mel(torch.from_numpy(samples)[None]))[0]
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-4, err_msg=name)
        tested += 1
    assert tested >= 3
