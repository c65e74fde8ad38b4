import time
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from task_aware.base.errors import RecordingError
from task_aware.data.audio import read_audio
from task_aware.data.blocks import read_ahead, read_blocks

from .recordings import burst, write


@pytest.mark.parametrize("rate", [16000, 8000, 11025, 44100, 44101, 96000])
@pytest.mark.parametrize("seconds", [0.07, 1.3, 20.0])
def test_blocks_joined_are_the_recording(tmp_path, rate, seconds):
    samples = np.random.default_rng(rate).uniform(-0.5, 0.5, (3 * rate + 77, 2))
    path = write(tmp_path / "stereo.wav", samples, rate)
    blocks = list(read_blocks(path, 16000, block_seconds=seconds))
    assert (len(blocks) > 1) == (seconds < 3)
    expected = read_audio(path)
    found = np.concatenate(blocks)
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert len(found) == -(-len(samples) * 16000 // rate)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("suffix", [".ogg", ".flac", ".mp3"])
def test_blocks_of_compressed_recordings_are_the_decoders_own_samples(tmp_path, suffix):
    """As nothing seeks, which gives other samples (findings/seeking_in_vorbis.sh, findings/blocks_of_mp3.sh)."""
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(12 * 16000) / 16000)
    soundfile.write(tmp_path / f"tone{suffix}", tone, 16000)
    whole, _ = soundfile.read(tmp_path / f"tone{suffix}", dtype="float32")
    blocks = list(read_blocks(tmp_path / f"tone{suffix}", 16000, block_seconds=0.3))
    assert len(blocks) > 30
    assert np.abs(np.concatenate(blocks) - whole).max() < 1e-6


def test_other_broken_recordings(tmp_path):
    (tmp_path / "empty.wav").touch()
    write(tmp_path / "none.wav", np.zeros(0))
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), 16000, subtype="FLOAT")
    for name, message in {
        "empty.wav": "cannot be decoded",
        "none.wav": "holds no samples",
        "nan.wav": "not finite",
        "absent.wav": "is not a file",
    }.items():
        with pytest.raises(RecordingError, match=message):
            list(read_blocks(tmp_path / name))


def test_memory_does_not_grow_with_the_length(tmp_path):
    path = tmp_path / "hour.wav"
    minute = (burst(60.0) * 32767).astype(np.int16)
    with soundfile.SoundFile(path, "w", 16000, 1) as file:
        for _ in range(60):
            file.write(minute)
    tracemalloc.start()
    try:
        assert sum(map(len, read_blocks(path))) == 3600 * 16000
        assert tracemalloc.get_traced_memory()[1] < 8e6  # three blocks of 1.3 MB; the hour is 230 MB
    finally:
        tracemalloc.stop()


class TestReadAhead:
    def test_everything_comes_in_order(self):
        def items(source):
            time.sleep(0.01 * (source % 3))
            yield from range(source)

        found = list(read_ahead(range(20), items, jobs=3, chunk=4))
        assert found == [(source, item) for source in range(20) for item in range(source)]

    def test_an_error_ends_its_source_alone(self):
        def items(source):
            yield 0
            if source == 1:
                raise RecordingError("broken")
            yield 1

        found = [(source, str(item)) for source, item in read_ahead(range(3), items, jobs=2)]
        assert found == [(0, "0"), (0, "1"), (1, "0"), (1, "broken"), (2, "0"), (2, "1")]

    def test_it_does_not_run_away_from_a_slow_reader(self):
        made = []

        def items(source):
            for item in range(1000):
                made.append((source, item))
                yield item

        reader = read_ahead(range(50), items, jobs=2, chunk=8)
        next(reader)
        time.sleep(0.1)
        assert len(made) <= 8 * 6
        sources = [source for source, _ in made]
        assert set(sources) <= set(range(5)) and all(b - a <= 4 for a, b in pairwise(sorted(sources)))
        reader.close()


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("values", [(np.inf, -np.inf), (3e38, 3e38), (np.nan, 0.0)])
def test_channels_that_are_not_finite_are_refused_in_one_sentence_alone(tmp_path, values):
    soundfile.write(tmp_path / "x.wav", np.tile(np.float32(values), (100, 1)), 16000, subtype="FLOAT")
    with pytest.raises(RecordingError, match="not finite"):
        list(read_blocks(tmp_path / "x.wav"))
