"""Reads sound from standard input or another pipe: raw samples, WAV, FLAC or Ogg, known by their first bytes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from task_aware.base.errors import RecordingError
from task_aware.data.blocks import decoded, resampled
from task_aware.data.containers import Sound, is_unknown, undecodable, wav_header
from task_aware.data.splicing import ENDLESS, Spliced

#: Stands for the file in messages.
NAME = Path("standard input")

# Bytes of a chunk that are read at a time: a damaged header may state gigabytes, for which Python takes memory at once.
_LONGEST = 1 << 16

# Formats that need the whole file, which would otherwise pass for raw samples.
_REFUSED = (b"RIFX", b"BW64", b"riff", b"FORM", b".snd", b"caff", b"ID3\2", b"ID3\3", b"ID3\4", b"\x1aE\xdf\xa3")


def read_stream(stream: BinaryIO, sample_rate: int, n_samples: int, channel: int | None = None) -> Iterator[np.ndarray]:
    """Yields what a stream holds as float32 blocks `[n]` at `sample_rate`, full scale 1, until it ends or Ctrl-C.

    WAV (of any length in its header), FLAC and Ogg may have any rate and any number of channels, of which `read_blocks`
    takes the mean or `channel`.
    Everything else is taken for signed 16-bit little-endian mono samples at `sample_rate`.

    Args:
        stream: what is read.
        sample_rate: samples per second.
        n_samples: samples to read at a time.
        channel: the channel to take, counted from 0; None takes the mean.

    Raises:
        RecordingError: the stream cannot be decoded, or is of a format that cannot be read from a pipe.
    """
    with suppress(KeyboardInterrupt):
        data = stream.read(4)
        if data in _REFUSED:
            raise RecordingError(
                f"{NAME} begins with {data!r}, a format that cannot be read from a pipe; send raw samples, WAV, FLAC "
                "or Ogg, for instance with `ffmpeg -i FILE -f wav -`."
            )
        if data in (b"RIFF", b"RF64", b"fLaC", b"OggS"):
            with _open(data, stream) as sound:
                blocks = decoded(NAME, sound, n_samples / sample_rate, channel)
                yield from resampled(blocks, sound.samplerate, sample_rate)
            return
        while data:
            yield np.frombuffer(data, dtype="<i2", count=len(data) // 2).astype(np.float32) / 32768
            data = stream.read(2 * n_samples)


def _open(head: bytes, stream: BinaryIO) -> Sound:
    try:
        if head == b"OggS":
            sound = Sound(_pipe(head, stream))
        else:
            sound = Sound(Spliced(head, stream) if head == b"fLaC" else _wav(stream))
    except soundfile.SoundFileError as error:
        raise RecordingError(undecodable(NAME, error, head)) from error
    sound.expected = None  # a stream may be stopped at any time
    return sound


def _wav(stream: BinaryIO) -> Spliced:
    """The stream after `RIFF`, with a header of its own in front of the samples."""
    stream.read(8)
    form, real = b"", 0  # `real` is the length of the samples in RF64
    while len(header := stream.read(8)) == 8:
        name, length = header[:4], int.from_bytes(header[4:], "little")
        if name == b"data":
            length = real if length == 0xFFFFFFFF else length
            n_bytes = ENDLESS if is_unknown(length) else length
            return Spliced(wav_header(form, n_bytes), stream, n_bytes)
        length += length % 2
        content = stream.read(min(length, _LONGEST))
        if name == b"fmt ":
            form = content
        elif name == b"ds64":
            real = int.from_bytes(content[8:16], "little")
        rest = length - len(content)
        while rest and (skipped := stream.read(min(rest, _LONGEST))):
            rest -= len(skipped)
    raise RecordingError(f"{NAME} is a WAV stream that ends before its first sample; check the program that sends it.")


def _pipe(head: bytes, stream: BinaryIO) -> int:
    """A pipe with all of the stream: libsndfile searches the end of an Ogg file unless it is a pipe."""
    reading, writing = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb", buffering=0) as pipe:
            pipe.write(head + stream.read1(1 << 20))  # type: ignore[attr-defined]
            # past the buffer, whose lock Python would wait for at its end
            while data := os.read(stream.fileno(), 1 << 16):
                pipe.write(data)

    threading.Thread(target=feed, daemon=True, name="ogg").start()
    return reading
