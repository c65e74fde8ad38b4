"""From several channels to one: what would be lost in the mean is named, and can be taken instead."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from task_aware.base.errors import RecordingError
from task_aware.data import Soundbank, read_audio
from task_aware.data.channels import Mixdown
from task_aware.data.desed import read_split

from .recordings import RATE, burst, write, write_table

AMBISONIC = bytes.fromhex("01000000 2107 d311 8644 c8c1ca000000")


def ambisonic(path: Path, samples: np.ndarray) -> Path:
    """Writes `[n, channels]` as a 16-bit WAV file whose header says B-format."""
    n_channels = samples.shape[1]
    form = struct.pack("<HHIIHH", 0xFFFE, n_channels, RATE, RATE * n_channels * 2, n_channels * 2, 16)
    form += struct.pack("<HHI", 22, 16, 0) + AMBISONIC
    data = np.rint(samples * 32767).astype("<i2").tobytes()
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


@pytest.fixture
def opposite(tmp_path) -> Path:
    """Stereo in opposite phase."""
    return write(tmp_path / "opposite.wav", np.outer(burst(0.5), [1, -1]))


def test_channels_that_cancel_are_named_once_and_each_can_be_taken(opposite, caplog):
    assert np.abs(read_audio(opposite)).max() < 2e-5
    assert "opposite.wav: the mean of its 2 channels lies" in caplog.text and "--channel" in caplog.text
    read_audio(opposite)
    assert caplog.text.count("opposite.wav") == 1
    left, right = (read_audio(opposite, channel=channel) for channel in (0, 1))
    assert np.abs(left + right).max() < 1e-4 and np.std(left) > 0.05
    for channel in (2, -1):
        with pytest.raises(RecordingError, match=f"has 2 channels, but channel {channel} was"):
            read_audio(opposite, channel=channel)


def test_an_offset_does_not_hide_that_channels_cancel(tmp_path, caplog):
    read_audio(write(tmp_path / "biased.wav", np.outer(burst(0.5), [1, -1]) + 0.1))
    assert "biased.wav: the mean of its 2 channels" in caplog.text


@pytest.mark.parametrize("n_channels", [2, 3, 7])
def test_the_mean_is_numpys(n_channels):
    samples = np.stack([burst(0.5, seed=seed) for seed in range(n_channels)], 1)
    found = Mixdown("a", n_channels, None)(samples)
    assert np.array_equal(found, samples.mean(axis=1))


def test_the_loudest_of_many_channels_is_named(tmp_path, caplog):
    samples = np.outer(burst(0.5), np.arange(16) == 5)
    read_audio(write(tmp_path / "array.wav", samples))
    assert "the mean of its 16 channels lies 24 dB below channel 5" in caplog.text


def test_usual_recordings_are_not_named(tmp_path, caplog):
    left, right = burst(0.5, seed=1), burst(0.5, seed=2)
    for number, channels in enumerate(([left, right], [left, 0 * left], [0 * left, 0 * left], [left] * 8)):
        read_audio(write(tmp_path / f"{number}.wav", np.stack(channels, axis=1)))
    assert not caplog.records


def test_w_of_an_ambisonic_file_is_taken(tmp_path, caplog):
    sound = burst(0.5)
    behind = np.outer(sound, [1 / np.sqrt(2), -1, 0, 0])  # W, X, Y, Z of a sound from behind
    path = ambisonic(tmp_path / "field.wav", behind)
    assert np.abs(read_audio(path) - behind[:, 0]).max() < 1e-4
    assert np.abs(read_audio(path, channel=1) - behind[:, 1]).max() < 1e-4
    assert not caplog.records
    # without the flag, four channels are four microphones
    soundfile.write(path, behind, RATE, format="WAVEX")
    assert np.abs(read_audio(path) - behind.mean(1)).max() < 1e-4


def test_a_data_folder_is_read_with_the_channel_that_was_asked_for(tmp_path):
    stereo = np.stack([burst(0.5, seed=1), burst(0.5, seed=2)], axis=1)
    write(tmp_path / "audio/validation/a.wav", stereo)
    write(tmp_path / "audio/train/soundbank/foreground/Dog/a.wav", stereo)
    rows = ("filename\tonset\toffset\tevent_label", "a.wav\t0\t0.5\tDog")
    write_table(tmp_path / "metadata/validation/validation.tsv", *rows)
    for channel in (0, 1):
        wanted = read_audio(tmp_path / "audio/validation/a.wav", channel=channel)
        (clip,) = read_split(tmp_path, "validation", channel=channel).clips
        assert np.array_equal(clip.read(RATE), wanted)
        bank = Soundbank(tmp_path, channel=channel)
        recording = bank.read(bank.foreground["Dog"][0])
        assert np.array_equal(recording.samples * np.float32(recording.scale), wanted)
