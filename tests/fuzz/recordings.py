"""Mutated recordings of all formats that libsndfile writes, through everything that reads one."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from task_aware.base.errors import DataError
from task_aware.data.audio import audio_header, read_audio
from task_aware.data.blocks import read_blocks
from task_aware.data.rirs import RirBank
from task_aware.data.soundbank import Soundbank
from task_aware.data.streams import read_stream
from task_aware.data.verify import probe

from .mutations import mutate

#: Formats with the subtypes to write; of the others the default is written.
SUBTYPES = {
    "WAV": ["PCM_16", "PCM_24", "PCM_U8", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610"],
    "WAVEX": ["PCM_16", "FLOAT"],
    "RF64": ["PCM_16", "PCM_24"],
    "W64": ["PCM_16", "FLOAT"],
    "AIFF": ["PCM_16", "FLOAT", "ULAW"],
    "AU": ["PCM_16", "FLOAT"],
    "CAF": ["PCM_16", "ALAC_16"],
    "FLAC": ["PCM_16", "PCM_24"],
    "OGG": ["VORBIS", "OPUS"],
    "MP3": ["MPEG_LAYER_III"],
}

#: Formats without a header, or of two files.
LEFT_OUT = {"RAW", "SD2"}

#: Those that the package's documentation names, which are fuzzed more often than the others.
MAIN = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "FLAC", "OGG", "MP3")


def is_sentence(error: BaseException) -> bool:
    return isinstance(error, DataError) and "\n" not in str(error)


def whole_files() -> dict[str, list[bytes]]:
    """Small recordings by format."""
    found: dict[str, list[bytes]] = {}
    for container in soundfile.available_formats():
        for subtype in SUBTYPES.get(
            container, [soundfile.default_subtype(container)] if container not in LEFT_OUT else []
        ):
            for rate, channels, seconds in ((16000, 1, 0.1), (44100, 2, 0.03), (8000, 1, 0.3)):
                samples = np.random.default_rng(0).uniform(-0.5, 0.5, (round(rate * seconds), channels))
                file = io.BytesIO()
                try:
                    soundfile.write(file, samples, rate, format=container, subtype=subtype)
                except (soundfile.LibsndfileError, ValueError):
                    continue  # not every format takes any rate and number of channels
                found.setdefault(container, []).append(file.getvalue())
    return found


def prepare(folder: Path) -> Callable[[Random, Path], None]:
    whole = whole_files()

    def case(random: Random, own: Path) -> None:
        container = random.choice(MAIN if random.random() < 0.75 else sorted(whole))
        data = mutate(random, random.choice(whole[container]), random.choice(whole[random.choice(MAIN)]))
        random.choice([file, file, file, stream, sounds, responses])(random, own, data)

    return case


def file(random: Random, own: Path, data: bytes) -> None:
    """The doors of single files, which agree on whether a file can be read."""
    path = own / f"x.{random.choice(['wav', 'flac', 'ogg', 'mp3', 'aiff'])}"
    path.write_bytes(data)
    found = probe(path, decode=True)
    assert "\n" not in found.error
    header = audio_header(path)
    samples = read_audio(path, random.choice([16000, header.sample_rate, 44100]))
    assert samples.ndim == 1 and samples.dtype == np.float32 and len(samples) and np.isfinite(samples).all()
    assert not found.error and found[:3] == header
    blocks = np.concatenate(list(read_blocks(path, header.sample_rate, block_seconds=0.01, channel=0)))
    assert len(blocks) == len(read_audio(path, header.sample_rate))


def stream(random: Random, own: Path, data: bytes) -> None:
    """What `listen -` reads from a pipe."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(data[: 1 << 16])  # as much as a pipe holds
    with os.fdopen(reading, "rb") as standard_input:
        for block in read_stream(standard_input, 16000, random.choice([1, 1600, 160000])):
            assert block.dtype == np.float32 and np.isfinite(block).all()


def sounds(random: Random, own: Path, data: bytes) -> None:
    """A soundbank with a whole recording and a mutated one."""
    os.environ["TASK_AWARE_CACHE"] = str(own / "cache")
    folder = own / "foreground" / "Dog"
    folder.mkdir(parents=True)
    soundfile.write(folder / "whole.wav", np.full(1600, 0.1), 16000)
    (folder / "x.wav").write_bytes(data)
    bank = Soundbank(own, max_broken=1.0)
    for path in bank.foreground["Dog"]:
        sound = bank.read(path)
        assert np.isfinite(sound.scale) and np.isfinite(sound.power()).all()
        assert np.isfinite(sound.frames.active_part(0, len(sound.samples)).rms)
    assert bank.describe()


def responses(random: Random, own: Path, data: bytes) -> None:
    os.environ["TASK_AWARE_CACHE"] = str(own / "cache")
    folder = own / "rirs"
    folder.mkdir()
    (folder / "x.wav").write_bytes(data)
    bank = RirBank(folder, max_broken=1.0)
    for room in bank.rooms:
        for path in room:
            response = bank.read(path)
            assert np.isfinite(response.scale) and response.frames.energies.sum() > 0
