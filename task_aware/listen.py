"""`python -m task_aware.listen`: the events of a live stream, or of a recording as if it were one, as they end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jsonargparse import ArgumentParser

from task_aware.base import cli
from task_aware.data.blocks import read_blocks
from task_aware.data.labels import Event
from task_aware.inference.live import LiveDetector

#: In place of a recording: samples on standard input.
STANDARD_INPUT = "-"


def read_standard_input(n_samples: int) -> Iterator[np.ndarray]:
    """Signed 16-bit little-endian samples of one channel as float32 [n], full scale 1; Ctrl-C ends them."""
    with suppress(KeyboardInterrupt):
        while data := sys.stdin.buffer.read(2 * n_samples):
            yield np.frombuffer(data, dtype="<i2", count=len(data) // 2).astype(np.float32) / 32768


def print_events(name: str, events: Iterable[Event]) -> None:
    """Rows of DESED's table."""
    for event in events:
        print(name, f"{event.onset:.3f}", f"{event.offset:.3f}", event.label, sep="\t", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints each event of a stream as a row of DESED's table as soon as it is final, and at the end how long it took.

    The model must be causal: see docs/inference.md.
    """
    parser = ArgumentParser(
        prog="python -m task_aware.listen",
        usage="python -m task_aware.listen CKPT FILE [options]\n"
        "       arecord -t raw -f S16_LE -r 16000 | python -m task_aware.listen CKPT - [options]",
        description=main.__doc__,
    )
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CKPT", help="a causal separator or detector")
    add("recording", metavar="FILE", help="a recording of any format and rate, or -: 16-bit little-endian samples of "
        "one channel at the model's rate on standard input")  # fmt: skip
    add("--chunk-seconds", type=float, default=0.1, help="what is heard at a time")
    add("--threshold", type=float, default=0.5, help="probability from which a class is active")
    add("--median", type=int | None, help="length of the median filter in output frames, 1 is none; default: the "
        "detector's own")  # fmt: skip
    options = parser.parse_args(arguments)
    if not 0 < options.threshold <= 1:
        raise ValueError(f"--threshold is {options.threshold}; give a probability above 0 and up to 1")
    live = LiveDetector(options.checkpoint, threshold=options.threshold, median_frames=options.median)
    n_samples = round(options.chunk_seconds * live.sample_rate)
    if n_samples < 1:
        raise ValueError(f"--chunk-seconds is {options.chunk_seconds}; give at least 1 / {live.sample_rate}")

    if options.recording == STANDARD_INPUT:
        chunks = read_standard_input(n_samples)
    else:
        chunks = read_blocks(options.recording, live.sample_rate, block_seconds=options.chunk_seconds)
    name = options.recording if options.recording == STANDARD_INPUT else Path(options.recording).name
    print("filename", "onset", "offset", "event_label", sep="\t", flush=True)
    elapsed = 0.0
    for chunk in chunks:
        start = time.perf_counter()
        events = live.push(chunk)
        elapsed += time.perf_counter() - start
        print_events(name, events)
    seconds = live.seconds
    start = time.perf_counter()
    events = live.flush()
    elapsed += time.perf_counter() - start
    print_events(name, events)
    factor = f" (real-time factor {elapsed / seconds:.4f})" if seconds else ""
    print(
        f"{seconds:.1f} s heard in {elapsed:.1f} s{factor}; an event comes at most {live.delay_seconds:.3f} s after "
        f"its end, and the rest of a chunk of {options.chunk_seconds:g} s",
        file=sys.stderr,
    )


if __name__ == "__main__":
    cli.run(main, stopped="stopped")
