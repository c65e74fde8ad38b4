"""mp3 files that do not state their length, of which libsndfile reads as much as it guesses."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from task_aware.base.errors import RecordingError
from task_aware.data.audio import audio_header, read_audio
from task_aware.data.mp3 import frame_at

from .recordings import burst


def bare(path: Path, *, rate: int = 16000, mode: str = "VARIABLE", loud_first: bool = True) -> np.ndarray:
    """Writes a recording of 12 s, loud in one third, without the first frame, which states its length."""
    levels = np.repeat([1.0, 1e-3, 1e-3] if loud_first else [1e-3, 1e-3, 1.0], 4 * rate)
    samples = (levels * np.tile(burst(12.0, level=0.2), 3)[: 12 * rate]).astype(np.float32)
    soundfile.write(path, samples, rate, format="MP3", bitrate_mode=mode, compression_level=0.5)
    content = path.read_bytes()
    path.write_bytes(content[frame_at(content, 0).n_bytes :])
    return samples


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize("loud_first", [True, False])
def test_a_file_without_a_stated_length_is_read_to_its_end(tmp_path, rate, mode, loud_first):
    samples = bare(tmp_path / "bare.mp3", rate=rate, mode=mode, loud_first=loud_first)
    found = read_audio(tmp_path / "bare.mp3", rate)
    assert len(samples) <= len(found) <= len(samples) + 3 * 1152
    assert audio_header(tmp_path / "bare.mp3").seconds == len(found) / rate
    # where the sound is loud, it comes with the encoder's delay of 576 samples
    loud = slice(rate, 3 * rate) if loud_first else slice(9 * rate, 11 * rate)
    expected, delayed = samples[loud], found[loud.start + 576 : loud.stop + 576]
    assert np.corrcoef(expected, delayed)[0, 1] > 0.5  # 0 at any other delay


def test_a_file_without_a_stated_length_that_ends_within_a_frame_is_an_error(tmp_path):
    bare(tmp_path / "cut.mp3")
    content = (tmp_path / "cut.mp3").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(content[: len(content) // 2])
    for door in (read_audio, audio_header):
        with pytest.raises(RecordingError, match="truncated: its last frame is cut off"):
            door(tmp_path / "cut.mp3")


def test_a_file_that_ends_within_its_header_is_one_sentence(tmp_path):
    soundfile.write(tmp_path / "whole.mp3", burst(1.0), 16000, format="MP3")
    content = (tmp_path / "whole.mp3").read_bytes()
    for length in range(4, 40):
        (tmp_path / "cut.mp3").write_bytes(content[:length])
        with pytest.raises(RecordingError, match="cut.mp3"):
            read_audio(tmp_path / "cut.mp3")


def test_files_joined_end_to_end_are_read_to_the_end(tmp_path):
    path = tmp_path / "joined.mp3"
    soundfile.write(path, burst(2.0), 16000, format="MP3")
    assert len(read_audio(path)) == 32000
    path.write_bytes(2 * path.read_bytes())
    assert 64000 <= len(read_audio(path)) <= 64000 + 6 * 1152


def test_tags_around_the_frames_are_no_sound(tmp_path):
    samples = bare(tmp_path / "tagged.mp3")
    content = (tmp_path / "tagged.mp3").read_bytes()
    plain = read_audio(tmp_path / "tagged.mp3")
    tag = b"ID3\x03\0\0\0\0\x01\x00" + bytes(128)
    (tmp_path / "tagged.mp3").write_bytes(tag + content + b"TAG" + bytes(125))
    assert np.array_equal(read_audio(tmp_path / "tagged.mp3"), plain) and len(plain) >= len(samples)
