"""`python -m task_aware.listen`: detects the events of a live stream, and prints each soon after it ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from task_aware.base import cli

if TYPE_CHECKING:
    from task_aware.data.labels import Event

#: Stands for standard input in place of a recording.
STANDARD_INPUT = "-"


def print_events(name: str, events: Iterable[Event]) -> None:
    """Prints events as rows of DESED's tables."""
    from task_aware.data.labels import written_times

    for event in events:
        print(name, *written_times(event), event.label, sep="\t", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Detects the events of a live stream, or of a recording as if it were one. The model must be causal.

    Each event is printed as a row of DESED's tables, a bounded time after its end. See docs/streams.md.
    """
    parser = cli.Parser(
        prog="python -m task_aware.listen",
        usage="python -m task_aware.listen CKPT FILE [options]\n"
        "       arecord -t raw -f S16_LE -r 16000 | python -m task_aware.listen CKPT - [options]",
        description=main.__doc__,
    )
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CKPT", help="a causal separator or detector")
    add("recording", metavar="FILE", help="a recording of any format and rate, or - for standard input: WAV, FLAC or "
        "Ogg, or raw 16-bit little-endian mono samples at the model's sample rate")  # fmt: skip
    add("--chunk-seconds", type=float, default=0.1, help="length of the pieces that are processed at a time, seconds")
    add("--threshold", type=float, default=0.5, help="probability from which a class is active")
    add("--median", type=int | None, help="length of the median filter in output frames; 1 switches it off; default: "
        "the detector's own")  # fmt: skip
    cli.add_channel(parser)
    options = parser.parse_args(arguments)
    if not 0 < options.threshold <= 1:
        raise ValueError(f"--threshold is {options.threshold}; give a probability above 0 and at most 1")
    # not above: help and mistakes answer without torch
    from task_aware.data.blocks import read_blocks
    from task_aware.data.streams import read_stream
    from task_aware.inference.live import LiveDetector

    live = LiveDetector(options.checkpoint, threshold=options.threshold, median_frames=options.median)
    n_samples = round(options.chunk_seconds * live.sample_rate)
    if n_samples < 1:
        raise ValueError(
            f"--chunk-seconds is {options.chunk_seconds}; give at least 1 / {live.sample_rate}, one sample"
        )

    if options.recording == STANDARD_INPUT:
        chunks = read_stream(sys.stdin.buffer, live.sample_rate, n_samples, options.channel)
    else:
        seconds = options.chunk_seconds
        chunks = read_blocks(options.recording, live.sample_rate, block_seconds=seconds, channel=options.channel)
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
        f"{seconds:.1f} s of audio in {elapsed:.1f} s{factor}; an event is printed at most {live.delay_seconds:.3f} s "
        f"after its end, plus the rest of a chunk of {options.chunk_seconds:g} s",
        file=sys.stderr,
    )


if __name__ == "__main__":
    cli.run(main, stopped="stopped")
