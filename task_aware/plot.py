"""`python -m task_aware.plot`: draws a recording and its separated sources, with detection probabilities in each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from task_aware.base import cli
from task_aware.base.errors import DataError

if TYPE_CHECKING:
    from task_aware.data.labels import Event


def true_events(table: Path, recording: Path, labels: Sequence[str], seconds: float) -> list[Event]:
    """The events that begin in the first `seconds` of a recording, from a table that names it."""
    from task_aware.data.desed import read_events

    events = read_events(table, labels)
    if recording.name not in events:
        raise DataError(f"{table} has no row for {recording.name}; give a table that names this recording")
    return [event for event in events[recording.name] if event.onset < seconds]


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws a recording and its separated sources, with detection probabilities in each, as in the paper's Figure 3.

    See docs/evaluation.md.
    """
    parser = cli.Parser(prog="python -m task_aware.plot", description=main.__doc__)
    parser.add_argument("checkpoint", type=Path, help="separator.safetensors")
    parser.add_argument("recording", type=Path, help="wav, flac, ogg or mp3 of any rate and number of channels")
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    cli.add_detector(parser)
    parser.add_argument(
        "--events", type=Path | None, help="table of true events to draw too (filename, onset, offset, event_label)"
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="how many seconds of the recording to draw, from its start"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    cli.add_channel(parser)
    options = parser.parse_args(arguments)
    if options.seconds <= 0:
        raise ValueError(f"--seconds is {options.seconds}; give more than 0")
    # not above: help and mistakes answer without torch
    import numpy as np

    from task_aware.data.blocks import read_blocks
    from task_aware.data.offset import remove_offset
    from task_aware.inference.predictor import Predictor
    from task_aware.plots.separation import draw_separation

    predictor = Predictor(
        options.checkpoint,
        detector=options.detector,
        device=options.device,
        window_seconds=max(20.0, options.seconds),
        channel=options.channel,
    )
    if predictor.separator is None:
        raise ValueError(
            f"{options.checkpoint} is a detector, but plot needs a separator; use infer --plot to draw detections"
        )
    rate = predictor.sample_rate
    blocks = read_blocks(options.recording, rate, block_seconds=options.seconds, channel=options.channel)
    samples = np.concatenate(list(islice(blocks, 2)))[: round(options.seconds * rate)]
    reference = None
    if options.events is not None:
        reference = true_events(options.events, options.recording, predictor.labels, len(samples) / rate)
    draw_separation(
        options.out,
        predictor.separator,
        remove_offset(samples, rate),
        reference=reference,
        estimated=predictor.detect(samples, rate),
        title=options.recording.name,
    )
    print(f"written to {options.out}")


if __name__ == "__main__":
    cli.run(main, stopped="stopped")
