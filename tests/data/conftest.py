"""A small data set in DESED's layout, with what real copies have: rows without events, offsets past the end,
missing files, cut-event suffixes, and audio of another format than the tables say."""

from pathlib import Path

import numpy as np
import pytest

from .recordings import burst, write, write_table

CORPUS = Path(__file__).parents[2] / "../shared/minidesed"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The data set: three classes in the soundbank, all five tables."""
    audio, metadata = tmp_path / "audio", tmp_path / "metadata"
    foreground = audio / "train/soundbank/foreground"
    write(foreground / "Speech/one.wav", burst(1.0, lead=0.2, tail=0.3, seed=1))
    write(foreground / "Speech_nOff/two.wav", burst(0.5, seed=2))
    write(foreground / "Dog/bark.flac", burst(0.4, level=0.01, seed=3))
    write(foreground / "Dog_nOn/bark.ogg", burst(0.6, seed=4))
    write(foreground / "Frying_nOn_nOff/pan.wav", burst(7.0, seed=5))
    write(foreground / "Doorbell/ring.wav", burst(0.5, seed=6))
    write(audio / "train/soundbank/background/sins/short.wav", burst(1.5, level=0.02, seed=7))
    write(audio / "train/soundbank/background/tut-scenes-2017-dev/long.wav", burst(8.0, level=0.02, seed=8))

    clip = burst(0.1)
    write(audio / "train/weak/Ya_10.000_20.000.flac", clip)  # the table says .wav
    write(audio / "train/weak/b.wav", clip)
    write_table(
        metadata / "train/weak.tsv",
        "filename\tevent_labels",
        "Ya_10.000_20.000.wav\tSpeech,Dog",
        "b.wav\tFrying",
        "gone.wav\tSpeech",
    )
    write(audio / "train/unlabel_in_domain/sub/c.ogg", clip)
    write_table(metadata / "train/unlabel_in_domain.tsv", "filename", "sub/c.wav")
    write(audio / "train/synthetic20/soundscapes/0.wav", clip)
    write_table(
        metadata / "train/synthetic20/soundscapes.tsv",
        "filename\tonset\toffset\tevent_label",
        "0.wav\t0.5\t1.5\tDog",
    )
    write(audio / "validation/v1.wav", clip)
    write(audio / "validation/v2.wav", clip)
    write(audio / "eval/public/p.wav", clip)
    strong = (
        "filename\tonset\toffset\tevent_label",
        "v1.wav\t9.0\t10.115\tSpeech",
        "v2.wav\t\t\t",
        "v1.wav\t1\t2\tDog",
    )
    write_table(metadata / "validation/validation.tsv", *strong)
    write_table(metadata / "eval/public.tsv", strong[0], "p.wav\t0\t10\tFrying")
    return tmp_path


@pytest.fixture
def fuss(tmp_path: Path) -> Path:
    """Room responses as FUSS has them: two rooms for training, one that is not; some with two channels."""
    generator = np.random.default_rng(0)
    rooms = tmp_path / "fuss/rir_data"
    for room, number in (("train/rirs_00", 3), ("train/rirs_01", 1), ("validation/rirs_00", 1)):
        for source in range(number):
            decay = np.exp(-np.arange(4000) / 800.0)
            response = 0.05 * decay[:, None] * generator.standard_normal((4000, 2))
            response[0] = 0.5
            write(rooms / room / f"{source}.wav", response)
    return tmp_path / "fuss"


@pytest.fixture(scope="session")
def minidesed() -> Path:
    if not CORPUS.is_dir():
        pytest.skip("the corpus of real recordings is not beside the checkout")
    return CORPUS.resolve()
