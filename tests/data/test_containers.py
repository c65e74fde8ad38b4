"""Recordings that end before their headers say so, or whose headers do not know: every format, at every door."""

import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from task_aware.base.errors import RecordingError
from task_aware.data.audio import audio_header, read_audio
from task_aware.data.blocks import read_blocks
from task_aware.data.verify import probe

from .recordings import burst, write

FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "extensible.wav": ("WAVEX", "PCM_24"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "sph": ("NIST", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def record(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    container, subtype = FORMATS[path.name.partition(".")[2]]
    soundfile.write(path, samples, rate, format=container, subtype=subtype)
    return path


def decode_all(path: Path) -> None:
    for _ in read_blocks(path):
        pass


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_off_recording_is_an_error_at_every_door(tmp_path, suffix, share):
    whole = record(tmp_path / f"whole.{suffix}", burst(4.0))
    assert len(read_audio(whole)) == pytest.approx(64000, abs=600)  # blocks of ADPCM are filled up
    assert audio_header(whole).seconds == pytest.approx(4.0, abs=0.04)
    content = whole.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(content[: int(share * len(content))])
    for door in (decode_all, read_audio, audio_header):
        with pytest.raises(RecordingError, match="truncated|malformed"):
            door(cut)
    assert probe(cut, decode=False).error and not probe(whole, decode=True).error


def stating(path: Path, size: int, samples: bytes | None = None, after: bytes = b"") -> Path:
    """A WAV file of one second whose header states another size of the samples."""
    write(path, burst(1.0))
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", size)
    path.write_bytes(bytes(content[:44]) + (content[44:] if samples is None else samples) + after)
    return path


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFDB])
def test_a_wav_file_of_unknown_length_is_read_to_its_end(tmp_path, size):
    """What recorders and FFmpeg leave that could not go back to write the length."""
    path = stating(tmp_path / "streamed.wav", size)
    expected = read_audio(write(tmp_path / "closed.wav", burst(1.0)))
    assert np.array_equal(read_audio(path), expected)
    assert audio_header(path).seconds == 1.0
    assert len(read_audio(stating(tmp_path / "silent.wav", size, bytes(3200)))) == 1600


def test_a_wav_file_with_more_sound_than_it_states_is_an_error(tmp_path):
    with pytest.raises(RecordingError, match="holds 32000 bytes, but its header states 16000"):
        read_audio(stating(tmp_path / "half.wav", 16000))
    tagged = stating(tmp_path / "tagged.wav", 32000, after=b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert len(read_audio(tagged)) == 16000


def test_an_empty_wav_file_has_no_samples_though_a_chunk_follows(tmp_path):
    with pytest.raises(RecordingError, match="holds no samples"):
        read_audio(stating(tmp_path / "empty.wav", 0, b"", b"LIST" + struct.pack("<I", 4) + b"INFO"))


def of_stated_length(path: Path, n_samples: int) -> Path:
    content = bytearray(path.read_bytes())
    fields = int.from_bytes(content[18:26], "big")
    content[18:26] = (fields >> 36 << 36 | n_samples).to_bytes(8, "big")
    path.write_bytes(content)
    return path


def test_flac_of_unknown_length_is_read_to_its_end(tmp_path):
    samples = burst(1.5)
    path = of_stated_length(record(tmp_path / "streamed.flac", samples), 0)
    assert np.abs(read_audio(path) - samples).max() < 1e-4
    assert audio_header(path).seconds == 1.5
    assert probe(path, decode=True).seconds == 1.5


def test_flac_shorter_than_it_states_is_an_error(tmp_path):
    path = of_stated_length(record(tmp_path / "short.flac", burst(1.0)), 10**9)
    for door in (read_audio, audio_header):
        with pytest.raises(RecordingError, match=r"short.flac is truncated: it ends"):
            door(path)


def test_what_follows_the_end_of_flac_does_not_matter(tmp_path):
    path = record(tmp_path / "tagged.flac", burst(1.0))
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    assert len(read_audio(path)) == 16000


@pytest.mark.parametrize("suffix", ["ogg", "opus"])
def test_an_ogg_file_of_several_streams_is_an_error(tmp_path, suffix):
    first = record(tmp_path / f"first.{suffix}", burst(1.0)).read_bytes()
    second = record(tmp_path / f"second.{suffix}", burst(2.0)).read_bytes()
    chained = tmp_path / f"chained.{suffix}"
    chained.write_bytes(first + second)
    for door in (read_audio, audio_header):
        with pytest.raises(RecordingError, match="several streams one after another, of which only the first"):
            door(chained)


@pytest.mark.parametrize("length", [1, 1000, 16001, 50001])
@pytest.mark.parametrize(("suffix", "rate"), [("ogg", 44100), ("opus", 48000), ("mp3", 44100), ("flac", 44100)])
def test_whole_recordings_of_any_length_are_whole(tmp_path, suffix, rate, length):
    path = record(tmp_path / f"whole.{suffix}", burst(4.0)[:length], rate)
    assert len(read_audio(path, rate)) == length == round(audio_header(path).seconds * rate)


def test_other_formats_are_named_with_a_way_to_convert_them(tmp_path):
    broadcast = record(tmp_path / "x.rf64", burst(0.1)).rename(tmp_path / "x.wav")
    broadcast.write_bytes(b"BW64" + broadcast.read_bytes()[4:])
    (tmp_path / "a b.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    for name, sentence in {
        "x.wav": r"is a Broadcast Wave file \(BW64\), .*`ffmpeg -i x.wav -c copy -rf64 auto x-rf64.wav`",
        "a b.m4a": r"is an MPEG-4 file \(such as m4a\), .*`ffmpeg -i 'a b.m4a' 'a b'.flac`",
    }.items():
        for door in (read_audio, audio_header):
            with pytest.raises(RecordingError, match=sentence):
                door(tmp_path / name)


def test_flac_in_ogg_as_ffmpeg_writes_it_is_named_with_a_way_to_convert_it(tmp_path):
    page = b"OggS\0\6" + bytes(20) + b"\1\x33" + b"\x7fFLAC\1\0\0\1fLaC"
    (tmp_path / "a.ogg").write_bytes(page.ljust(28 + 0x33, b"\0"))
    with pytest.raises(RecordingError, match=r"is FLAC in Ogg, .* `ffmpeg -i a.ogg a.flac`"):
        read_audio(tmp_path / "a.ogg")


def test_flac_of_32_bits_is_named_with_a_way_to_convert_it(tmp_path):
    path = record(tmp_path / "a.flac", burst(0.1), 44100)
    content = bytearray(path.read_bytes())
    content[20] |= 0x01  # bits of a sample, less one: 31
    content[21] |= 0xF0
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"is FLAC of 32 bits, .* `ffmpeg -i a.flac -c:a pcm_s32le a.wav`"):
        read_audio(path)


def test_a_sample_rate_that_no_recording_has_is_an_error(tmp_path):
    """At 16 kHz, a megabyte at 1 Hz would have 17 billion samples."""
    soundfile.write(tmp_path / "slow.wav", np.full(50, 0.1), 99)
    for read in (audio_header, read_audio):
        with pytest.raises(RecordingError, match="slow.wav states a sample rate of 99 Hz; correct its header"):
            read(tmp_path / "slow.wav")


def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for door in (decode_all, read_audio, audio_header):
        errors: list[Exception] = []

        def attempt(door=door, errors=errors) -> None:
            try:
                door(tmp_path / "pipe.wav")
            except RecordingError as error:
                errors.append(error)

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(timeout=20)
        assert len(errors) == 1 and "pipe.wav is not a file" in str(errors[0])
