"""Reads recordings of any length in constant memory: decodes, averages channels and resamples block by block."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
import soxr

from task_aware.base.errors import RecordingError
from task_aware.data.channels import Mixdown
from task_aware.data.containers import Sound, open_sound
from task_aware.data.splicing import ENDLESS

#: Seconds decoded at a time.
BLOCK_SECONDS = 20.0

#: Samples of all channels that are decoded at a time at most, whatever rate a header states.
MOST_SAMPLES = 1 << 23

#: An mp3 file that ends before this share of its length is truncated: damaged frames are left out.
WHOLE_SHARE = 0.99

Source = TypeVar("Source")
Item = TypeVar("Item")


def read_blocks(
    path: str | Path, sample_rate: int = 16000, *, block_seconds: float = BLOCK_SECONDS, channel: int | None = None
) -> Iterator[np.ndarray]:
    """Yields a recording as consecutive float32 blocks [n] at `sample_rate`, which join to what `read_audio` returns.

    Reads every format that libsndfile decodes (wav, flac, ogg, opus, mp3, aiff, ...), at any rate, with any number of
    channels, which are averaged unless `channel` selects one, counted from 0. Of a wav file whose header says that it
    is Ambisonic, channel 0 is taken instead of the average: W, the sound from all directions.

    Raises RecordingError if the file is missing, undecodable, truncated, empty or not finite, or lacks that channel;
    possibly after some blocks.
    """
    path = Path(path)
    with open_sound(path) as sound:
        blocks = decoded(path, sound, block_seconds, channel)
        n_block = max(1, round(block_seconds * sample_rate))
        kept = np.empty(0, dtype=np.float32)
        for found in resampled(blocks, sound.samplerate, sample_rate):
            kept = np.concatenate([kept, found])
            while len(kept) >= n_block:
                yield kept[:n_block]
                kept = kept[n_block:]
        if len(kept):
            yield kept


def decoded(path: Path, sound: Sound, block_seconds: float, channel: int | None = None) -> Iterator[np.ndarray]:
    """Yields one channel, or the mean of all, as float32 blocks [n] at the file's own rate. Raises as `read_blocks`."""
    if channel is None and sound.is_ambisonic:
        channel = 0
    mixdown = Mixdown(str(path), sound.channels, channel)
    n_read = 0
    n_block = max(1, min(round(block_seconds * sound.samplerate), MOST_SAMPLES // sound.channels))
    # not beyond the end that the file states: tags may follow
    while len(samples := _read(path, sound, min(n_block, (sound.expected or ENDLESS) - n_read), n_read)):
        n_read += len(samples)
        mono = mixdown(samples)
        if not np.isfinite(mono).all():
            raise RecordingError(f"{path} holds samples that are not finite; replace or remove it.")
        yield mono
    if not n_read:
        raise RecordingError(f"{path} holds no samples; replace or remove it.")
    mixdown.check()
    if sound.expected is not None and n_read < sound.expected * (WHOLE_SHARE if sound.format == "MP3" else 1):
        rate = sound.samplerate
        raise RecordingError(
            f"{path} is truncated: it ends after {n_read / rate:.1f} of {sound.expected / rate:.1f} s; copy it again."
        )


def _read(path: Path, sound: Sound, n_frames: int, done: int) -> np.ndarray:
    try:
        return sound.read(n_frames, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise RecordingError(
            f"{path} is damaged or truncated: it cannot be decoded beyond {done / sound.samplerate:.1f} s ("
            f"{str(error).rstrip('.')}); copy it again."
        ) from error


def resampled(blocks: Iterable[np.ndarray], rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    """Yields consecutive blocks [n] at another rate, band-limited; N samples become N * sample_rate / rate, rounded up.

    The filter's delay, some milliseconds, is held back until the last block.
    """
    if rate == sample_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32")
    n_in = n_out = 0
    for block in blocks:
        n_in += len(block)
        found = stream.resample_chunk(block)
        n_out += len(found)
        if len(found):
            yield found
    # zeros, as soxr would otherwise round down
    found = stream.resample_chunk(np.zeros(rate // sample_rate + 2, dtype=np.float32), last=True)
    yield found[: -(-n_in * sample_rate // rate) - n_out]


def read_ahead(
    sources: Iterable[Source], open_source: Callable[[Source], Iterator[Item]], jobs: int, *, chunk: int = 8
) -> Iterator[tuple[Source, Item | RecordingError]]:
    """Yields what `open_source` yields for each source, in order, prefetched by `jobs` threads.

    If a source raises RecordingError, that error is its last item. At most `chunk` items of each of `2 * jobs + 1`
    sources are in memory.
    """
    todo = iter(sources)
    running: deque[tuple[Source, Iterator[Item], Future[list[Item | RecordingError]]]] = deque()

    def take(items: Iterator[Item]) -> list[Item | RecordingError]:
        taken: list[Item | RecordingError] = []
        try:
            taken.extend(islice(items, chunk))
        except RecordingError as error:
            taken.append(error)
        return taken

    with ThreadPoolExecutor(jobs, thread_name_prefix="decode") as pool:

        def start() -> None:
            for source in islice(todo, 1):
                items = open_source(source)
                running.append((source, items, pool.submit(take, items)))

        for _ in range(2 * jobs):
            start()
        while running:
            source, items, future = running.popleft()
            start()
            more = True
            while more:
                taken = future.result()
                more = len(taken) == chunk and not isinstance(taken[-1], RecordingError)
                if more:
                    future = pool.submit(take, items)
                for item in taken:
                    yield source, item
