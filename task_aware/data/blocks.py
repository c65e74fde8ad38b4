"""Reads recordings of any length in constant memory: decodes, averages channels and resamples block by block."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile

from task_aware.data.audio import RecordingError, resample

#: Seconds decoded at a time.
BLOCK_SECONDS = 20.0

#: A recording that ends before this share of the length in its header is truncated (mp3 headers only estimate it).
WHOLE_SHARE = 0.99

#: Sizes in a WAV header from here on mean that its writer did not know the size.
UNKNOWN_SIZE = 0x7FFF0000

#: Largest resampling kernel; that of two rates without a large common divisor would not fit into memory.
MAX_KERNEL = 1 << 27

Source = TypeVar("Source")
Item = TypeVar("Item")


def read_blocks(
    path: str | Path, sample_rate: int = 16000, *, block_seconds: float = BLOCK_SECONDS
) -> Iterator[np.ndarray]:
    """Yields a recording as consecutive float32 blocks [n] at `sample_rate`, which join to what `read_audio` returns.

    Reads every format that libsndfile decodes (wav, flac, ogg, opus, mp3, aiff, ...), at any rate, with any number of
    channels.

    Raises:
        RecordingError: the file is missing, undecodable, truncated, empty or not finite; possibly after some blocks.
        DataError: the file has another rate and torchaudio cannot be imported.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordingError(f"{path} is not a file; check the folder and the name.")
    try:
        with soundfile.SoundFile(path) as file:
            check_whole(path, file)
            mono = _mono(path, file, block_seconds)
            yield from mono if file.samplerate == sample_rate else _resampled(path, mono, file.samplerate, sample_rate)
    except (OSError, soundfile.SoundFileError) as error:
        reason = str(error).rstrip(".").removeprefix(f"Error opening {str(path)!r}: ")
        raise RecordingError(f"{path} cannot be decoded ({reason}); replace or remove it.") from error


def check_whole(path: Path, file: soundfile.SoundFile) -> None:
    """Raises RecordingError if a WAV file is shorter than its header says, which libsndfile ignores."""
    sizes = re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    if sizes and int(sizes[2]) < int(sizes[1]) < UNKNOWN_SIZE:
        raise RecordingError(f"{path} is truncated: it holds {sizes[2]} of {sizes[1]} bytes; copy it again.")


def _mono(path: Path, file: soundfile.SoundFile, block_seconds: float) -> Iterator[np.ndarray]:
    n_read = 0
    n_block = max(1, round(block_seconds * file.samplerate))
    while len(samples := file.read(n_block, dtype="float32", always_2d=True)):
        n_read += len(samples)
        mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
        if not np.isfinite(mono).all():
            raise RecordingError(f"{path} holds samples that are not finite; replace or remove it.")
        yield np.ascontiguousarray(mono)
    if not n_read:
        raise RecordingError(f"{path} holds no samples; replace or remove it.")
    if n_read < WHOLE_SHARE * file.frames:
        rate = file.samplerate
        raise RecordingError(
            f"{path} is truncated: it ends after {n_read / rate:.1f} of {file.frames / rate:.1f} s; copy it again."
        )


def _resampled(path: Path, blocks: Iterable[np.ndarray], rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    """Resamples each block with as much context as torchaudio's kernel spans, so that no seams appear."""
    divisor = math.gcd(rate, sample_rate)
    n_in, n_out = rate // divisor, sample_rate // divisor
    reach = math.ceil(6 * n_in / (0.99 * min(n_in, n_out)))  # lowpass_filter_width and rolloff, torchaudio's defaults
    if n_out * (n_in + 2 * reach) > MAX_KERNEL:
        raise RecordingError(
            f"{path} has a rate of {rate} Hz, which has no simple ratio to {sample_rate} Hz; resample the file first."
        )
    context = math.ceil(reach / n_in) * n_in
    kept, first, done = np.empty(0, dtype=np.float32), 0, 0  # samples from `first` on; those before `done` are yielded
    for block in blocks:
        ready = (first + len(kept) - context - done) // n_in
        if ready > 0:
            skip = (done - first) // n_in * n_out
            yield resample(path, kept, rate, sample_rate)[skip : skip + ready * n_out]
            done += ready * n_in
            unused = max(0, done - context) - first
            kept, first = kept[unused:], first + unused
        kept = np.concatenate([kept, block])
    yield resample(path, kept, rate, sample_rate)[(done - first) // n_in * n_out :]


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
