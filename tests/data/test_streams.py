"""What arrives on standard input: raw samples, or a format that its first bytes tell."""

import io
import struct
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from task_aware.base.errors import RecordingError
from task_aware.data.audio import read_audio
from task_aware.data.streams import read_stream

from .recordings import burst, write


@contextmanager
def piped(path: Path):
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as process:
        yield process.stdout


def joined(path: Path, n_samples: int = 700) -> np.ndarray:
    with piped(path) as stream:
        return np.concatenate(list(read_stream(stream, 16000, n_samples)))


@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        ("wav", {}),
        ("wav", {"subtype": "FLOAT"}),
        ("wav", {"format": "WAVEX", "subtype": "PCM_24"}),
        ("wav", {"format": "RF64"}),
        ("flac", {}),
        ("ogg", {}),
        ("opus", {"format": "OGG", "subtype": "OPUS"}),
    ],
)
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (48000, 2)])
def test_a_stream_of_any_form_is_the_recording(tmp_path, suffix, form, rate, channels):
    path = tmp_path / f"sent.{suffix}"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (rate, channels))
    soundfile.write(path, samples, rate, **form)
    assert np.array_equal(joined(path), read_audio(path))


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000, 0x80000000])
def test_a_wav_stream_does_not_know_its_length(tmp_path, size):
    path = write(tmp_path / "sent.wav", burst(1.0))
    expected = read_audio(path)
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", size)
    path.write_bytes(content)
    assert np.array_equal(joined(path), expected)


def test_a_chunk_after_the_samples_is_no_sound(tmp_path):
    path = write(tmp_path / "sent.wav", burst(1.0))
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert len(joined(path)) == 16000


@pytest.mark.parametrize("n_samples", [1, 1000])
def test_everything_else_is_raw_samples(tmp_path, n_samples):
    raw = np.arange(-3, 2000, dtype="<i2")
    found = np.concatenate(list(read_stream(io.BytesIO(raw.tobytes() + b"\0"), 16000, n_samples)))
    assert np.array_equal(found * 32768, raw)
    assert not list(read_stream(io.BytesIO(), 16000, n_samples))


def test_a_wav_stream_is_heard_as_it_arrives():
    """The first samples come before the rest is sent, and Ctrl-C ends the stream."""

    class Microphone(io.RawIOBase):
        sent = bytearray(
            b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\x80>\0\0\0}\0\0\x02\0\x10\0data\xff\xff\xff\xff"
        )

        def read(self, n_bytes: int = -1) -> bytes:
            if not self.sent:
                raise KeyboardInterrupt
            data, self.sent = bytes(self.sent[:n_bytes]), self.sent[n_bytes:]
            return data

    stream = Microphone()
    stream.sent += np.arange(1000, dtype="<i2").tobytes()
    blocks = read_stream(stream, 16000, 100)
    assert np.array_equal(next(blocks) * 32768, np.arange(100))
    assert len(stream.sent) >= 2 * 800
    assert sum(map(len, blocks)) == 900


@pytest.mark.parametrize("kind", ["AIFF", "AU", "CAF"])
def test_what_cannot_be_read_from_a_pipe_is_refused(tmp_path, kind):
    soundfile.write(tmp_path / "sent", burst(0.1), 16000, format=kind, subtype="PCM_16")
    with pytest.raises(RecordingError, match=r"standard input begins with b'.*', a format that cannot be read from a"):
        joined(tmp_path / "sent")


def test_a_header_alone_is_one_sentence():
    with pytest.raises(RecordingError, match="standard input is a WAV stream that ends before its first sample"):
        list(read_stream(io.BytesIO(b"RIFF\0\0\0\0WAVE"), 16000, 100))
    with pytest.raises(RecordingError, match="standard input cannot be decoded"):
        list(read_stream(io.BytesIO(b"fLaC" + bytes(100)), 16000, 100))


def test_a_damaged_header_takes_no_memory():
    """A stream is asked for little at a time, however long a chunk says that it is."""

    class Stream(io.BytesIO):
        def read(self, n_bytes: int | None = -1) -> bytes:
            assert n_bytes is not None and 0 <= n_bytes <= 1 << 20
            return super().read(n_bytes)

    with pytest.raises(RecordingError, match="ends before its first sample"):
        list(read_stream(Stream(b"RIFF\0\0\0\0WAVEjunk\xf0\xff\xff\xff" + bytes(100)), 16000, 100))
