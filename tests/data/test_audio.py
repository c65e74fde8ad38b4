import resource

import numpy as np
import pytest
import soundfile

from task_aware.data.audio import (
    RecordingError,
    audio_seconds,
    read_audio,
    resample,
    write_audio,
)

from .recordings import burst, write


@pytest.mark.parametrize(("suffix", "tolerance"), [(".wav", 1 / 32768), (".flac", 1 / 32768), (".ogg", 0.1)])
def test_what_is_written_is_read(tmp_path, suffix, tolerance):
    tone = (0.5 * np.sin(np.arange(8001) / 10)).astype(np.float32)
    path = tmp_path / f"new/tone{suffix}"
    write_audio(path, tone, 16000)
    found = read_audio(path)
    assert found.dtype == np.float32 and found.shape == tone.shape
    assert np.abs(found - tone).max() <= tolerance
    assert audio_seconds(path) == pytest.approx(8001 / 16000)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_channels_are_averaged_or_picked(tmp_path):
    path = write(tmp_path / "stereo.wav", np.tile([0.5, 0.25], (100, 1)))
    assert read_audio(path) == pytest.approx(np.full(100, 0.375), abs=1e-4)
    assert read_audio(path, channel=0) == pytest.approx(np.full(100, 0.5), abs=1e-4)
    with pytest.raises(RecordingError, match=r"stereo.wav has 2 channels, but channel 2 was requested"):
        read_audio(path, channel=2)


def test_other_rates_are_resampled(tmp_path):
    rate, frequency = 44100, 1000.0
    tone = 0.5 * np.sin(2 * np.pi * frequency * np.arange(rate) / rate)
    found = read_audio(write(tmp_path / "tone.wav", tone, rate))
    assert len(found) == 16000
    expected = 0.5 * np.sin(2 * np.pi * frequency * np.arange(16000) / 16000)
    assert np.abs(found - expected)[100:-100].max() < 1e-3


def test_nothing_folds_back_into_the_band(tmp_path):
    """A tone above half of the new rate is gone."""
    tone = 0.5 * np.sin(2 * np.pi * 9000 * np.arange(44100) / 44100)
    found = read_audio(write(tmp_path / "tone.wav", tone, 44100))
    assert np.abs(found)[200:-200].max() < 1e-4


def test_a_rate_without_common_divisors_needs_little_memory(tmp_path):
    """At any door: in blocks, whole, and for arrays. A polyphase filter for 44,101 Hz would take gigabytes."""
    seconds, rate = 60, 44101
    tone = (0.5 * np.sin(2 * np.pi * 1000 * np.arange(seconds * rate) / rate)).astype(np.float32)
    path = write(tmp_path / "odd.wav", tone, rate)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    whole = read_audio(path)
    array = resample(path, np.stack([tone, tone]), rate, 16000)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 200  # MiB
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(seconds * 16000) / 16000)
    assert whole.shape == (seconds * 16000,) and array.shape == (2, seconds * 16000)
    assert np.abs(whole - expected)[200:-200].max() < 1e-3
    assert np.abs(array - expected)[:, 200:-200].max() < 1e-3


def test_unusable_files_are_named(tmp_path):
    (tmp_path / "text.wav").write_text("not audio")
    write(tmp_path / "empty.wav", np.zeros(0))
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16000, subtype="FLOAT")
    cut = write(tmp_path / "cut.flac", burst(1.0))
    cut.write_bytes(cut.read_bytes()[:20])
    for name, reason in (
        ("text.wav", "cannot be decoded"),
        ("cut.flac", "cannot be decoded"),
        ("empty.wav", "no samples"),
        ("nan.wav", "not finite"),
        ("absent.wav", "not a file"),
    ):
        with pytest.raises(RecordingError, match=rf"{name}.* {reason}") as caught:
            read_audio(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(RecordingError, match="text.wav cannot be decoded"):
        audio_seconds(tmp_path / "text.wav")


def test_writing_beyond_full_scale_does_not_clip(tmp_path):
    loud = np.array([1.5, -2.0, 0.25], dtype=np.float32)
    write_audio(tmp_path / "loud.wav", loud, 16000)
    assert read_audio(tmp_path / "loud.wav").tolist() == loud.tolist()
    with pytest.raises(ValueError, match="loud.flac reach 2, beyond full scale"):
        write_audio(tmp_path / "loud.flac", loud, 16000)


def test_the_same_floats_are_written_as_the_same_bytes_at_any_time(tmp_path):
    path = tmp_path / "loud.wav"
    write_audio(path, np.array([1.5, -2.0], dtype=np.float32), 16000)
    content = path.read_bytes()
    assert content.count(b"PEAK") == 1
    at = content.index(b"PEAK") + 8
    assert content[at : at + 8] == b"\1\0\0\0\0\0\0\0"  # the version, and the time


@pytest.mark.parametrize("samples", [np.zeros((2, 5)), np.array([np.nan])])
def test_a_failed_write_leaves_the_old_file(tmp_path, samples):
    path = tmp_path / "kept.wav"
    write_audio(path, burst(0.1), 16000)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="samples"):
        write_audio(path, samples, 16000)
    with pytest.raises(ValueError, match=r"end in one of .wav"):
        write_audio(tmp_path / "x.mp3", burst(0.1), 16000)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
