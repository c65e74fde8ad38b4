"""`python -m task_aware.listen` as a user meets it: recordings, standard input, mistakes."""

import io
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from data.recordings import burst, write

from task_aware import Predictor, listen
from task_aware.base.errors import RecordingError
from task_aware.data.audio import read_audio


@pytest.fixture
def checkpoint(causal_separator, tmp_path) -> Path:
    causal_separator.save(tmp_path / "separator.safetensors")
    return tmp_path / "separator.safetensors"


@pytest.fixture
def samples() -> np.ndarray:
    return np.concatenate([burst(0.5 * k, lead=0.3, level=0.05 * k, seed=k) for k in range(1, 4)])


def rows_of(events, name: str) -> list[str]:
    events = sorted(events, key=lambda event: event.offset)
    return [f"{name}\t{event.onset:.3f}\t{event.offset:.3f}\t{event.label}" for event in events]


@pytest.mark.parametrize("rate", [16000, 24000])
def test_a_recording_of_any_rate_has_the_events_that_infer_finds(
    causal_separator, checkpoint, samples, tmp_path, capsys, rate
):
    path = write(tmp_path / "clip.wav", samples, rate)
    listen.main([str(checkpoint), str(path), "--threshold=0.45", "--chunk-seconds=0.07"])
    printed = capsys.readouterr()
    header, *rows = printed.out.splitlines()
    assert header == "filename\tonset\toffset\tevent_label"
    events = Predictor(causal_separator, device="cpu", threshold=0.45).detect(read_audio(path), 16000)
    assert sorted(rows) == sorted(rows_of(events, "clip.wav")) != []
    summary = (
        rf"{len(samples) / rate:.1f} s of audio in .+ s \(real-time factor \d+\.\d{{4}}\); "
        "an event is printed at most 0.476 s"
    )
    assert re.match(summary, printed.err)


def test_standard_input_is_raw_samples(checkpoint, samples, tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "clip.wav", samples)
    listen.main([str(checkpoint), str(path)])
    expected = capsys.readouterr().out.replace("clip.wav", "-")
    raw = np.round(32768 * read_audio(path)).astype("<i2").tobytes()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(raw + b"\0")))  # and half of a sample
    listen.main([str(checkpoint), "-", "--chunk-seconds=0.25"])
    printed = capsys.readouterr()
    assert printed.out == expected and "\n-\t" in expected
    assert "3.9 s of audio in" in printed.err


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_format_on_standard_input_is_known_by_its_first_bytes(
    checkpoint, samples, tmp_path, monkeypatch, capsys, suffix
):
    """As raw samples, the header of a WAV stream would be heard, and 48 kHz would last three times as long."""
    path = write(tmp_path / f"clip.{suffix}", np.repeat(samples, 3), 48000)
    listen.main([str(checkpoint), str(path)])
    expected = capsys.readouterr().out.replace(f"clip.{suffix}", "-")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(path.read_bytes())))
    listen.main([str(checkpoint), "-"])
    printed = capsys.readouterr()
    assert printed.out == expected and "\n-\t" in expected
    assert "3.9 s of audio in" in printed.err


def test_an_event_is_printed_before_the_stream_ends(checkpoint, samples, monkeypatch, capsys):
    """Ctrl-C ends the stream as its end would."""

    class Microphone(io.RawIOBase):
        position, printed = 0, ""

        def read(self, n_bytes: int) -> bytes:
            Microphone.printed += capsys.readouterr().out
            if self.position >= len(samples):
                raise KeyboardInterrupt
            part = samples[self.position : self.position + n_bytes // 2]
            self.position += n_bytes // 2
            return (32767 * part).astype("<i2").tobytes()

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Microphone()))
    listen.main([str(checkpoint), "-", "--threshold=0.45"])
    assert Microphone.printed.count("\n") > 2
    assert "3.9 s of audio" in capsys.readouterr().err


def test_an_empty_stream(checkpoint, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO()))
    listen.main([str(checkpoint), "-"])
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1 and printed.err.startswith("0.0 s of audio in ")


def test_mistakes_are_one_sentence(checkpoint, small_separator, tmp_path):
    with pytest.raises(ValueError, match=r"--chunk-seconds is 0.0; give at least 1 / 16000"):
        listen.main([str(checkpoint), "-", "--chunk-seconds=0"])
    with pytest.raises(ValueError, match="--threshold is 0.0"):
        listen.main([str(checkpoint), "-", "--threshold=0"])
    with pytest.raises(RecordingError, match="absent.wav is not a file"):
        listen.main([str(checkpoint), str(tmp_path / "absent.wav")])
    small_separator.save(tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match="this model cannot process a stream"):
        listen.main([str(tmp_path / "small.safetensors"), "-"])
