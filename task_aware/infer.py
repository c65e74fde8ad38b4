"""`python -m task_aware.infer`: detects the sound events in recordings of any format and length."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from jsonargparse import Namespace

from task_aware.base import cli
from task_aware.base.types import Format, Layout
from task_aware.models.options import Merge, Precision

_log = logging.getLogger(__name__)

#: Options of the predictor, with the names of its arguments.
PREDICTOR = {name: name for name in ("detector", "device", "precision", "merge", "threshold", "channel", "batch_size")}
PREDICTOR |= {"median": "median_frames", "window": "window_seconds", "overlap": "overlap_seconds"}


def make_parser() -> cli.Parser:
    """The command's options."""
    parser = cli.Parser(
        prog="python -m task_aware.infer",
        usage="python -m task_aware.infer CKPT PATH... --out DIR [options]\n"
        "       python -m task_aware.infer --demo PATH... --out DIR [options]",
        description=main.__doc__,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="PATH", help="CKPT, a separator or a detector (not with --demo), then recordings: "
        "files, folders, glob patterns, and lists of them (.txt, .tsv)")  # fmt: skip
    add("--out", type=Path, required=True, help="output folder")
    cli.add_detector(parser)
    add("--demo", action="store_true", help="use the package's separator, which detects DESED's ten classes")
    add("--scores", action="store_true", help="also write frame probabilities, in sed_scores_eval's format")
    add("--plot", action="store_true", help="also draw each recording")
    add("--plot-minutes", type=float, default=2.0, help="how many minutes of a recording to draw, from its start")
    add("--audio", action="store_true", help="also write the separated sources (see docs/inference.md)")
    add("--audio-layout", choices=get_args(Layout), default="flac", help="form of the sources; s5: DCASE 2026 task 4's")
    add("--html", action="store_true", help="also write index.html to see and hear it all, and a separator's sources")
    cli.add_export(parser, get_args(Format))
    add("--threshold", type=float, default=0.5, help="probability from which a class counts as active")
    add("--median", type=int | None, help="length of the median filter in output frames; 1 switches it off; default: "
        "the detector's own")  # fmt: skip
    add("--merge", choices=get_args(Merge), help="how detections of sources are combined; default: the separator's own")
    add("--window", type=float, default=20.0, help="seconds analysed at once; longer recordings are split")
    add("--overlap", type=float, default=5.0, help="overlap of neighbouring windows, in seconds")
    add("--batch-size", type=int | None, help="windows per batch; default: 32 on a GPU, 1 on the CPU")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    add("--precision", choices=get_args(Precision), default="32-true", help="numerical precision of the networks")
    cli.add_channel(parser)
    add("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="threads that decode recordings")
    add("--skip-existing", action="store_true", help="skip recordings that have results, to continue a stopped run")
    add("--shard", help="process only part i of n, such as 1/4; writes events-1-of-4.tsv instead of events.tsv")
    return parser


def check(options: Namespace) -> None:
    """Raises ValueError if there is nothing to hear, or a number is out of its range."""
    if len(options.inputs) + options.demo < 2:
        raise ValueError("no recordings given; give a checkpoint (or --demo), then files or folders")
    if not 0 < options.threshold <= 1:
        raise ValueError(f"--threshold is {options.threshold}; give a probability above 0 and at most 1")
    for option, value in (("jobs", options.jobs), ("median", options.median), ("batch-size", options.batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"--{option} is {value}; give at least 1")
    if options.plot_minutes <= 0:
        raise ValueError(f"--plot-minutes is {options.plot_minutes}; give more than 0")


def main(arguments: Sequence[str] | None = None) -> None:
    """Detects the sound events in recordings, and writes them as tables. See docs/inference.md.

    Exit status: 0 if all recordings were processed, 1 if some could not be read (errors.tsv names them), 2 if the
    command line is wrong.
    """
    options = make_parser().parse_args(arguments)
    check(options)
    # not above: help and mistakes answer without torch
    from task_aware.annotations.writing import check_format
    from task_aware.inference.batch import Writer, analyse, seconds_of
    from task_aware.inference.outputs import Outputs, Wanted
    from task_aware.inference.predictor import Predictor
    from task_aware.inference.recordings import shard
    from task_aware.inference.selection import select_recordings
    from task_aware.inference.submission import write_eval_results
    from task_aware.models.opening import BUILTIN_SEPARATOR
    from task_aware.viewing.page import write_page

    check_format(options.export)
    checkpoint, *inputs = [str(BUILTIN_SEPARATOR)] * options.demo + options.inputs
    predictor = Predictor(checkpoint, **{name: options[option] for option, name in PREDICTOR.items()})
    if options.audio and predictor.separator is None:
        raise ValueError(f"{checkpoint} is a detector, but --audio needs a separator")
    audio = options.audio or (options.html and predictor.separator is not None)
    asked = {name: options[name] for name in ("scores", "plot", "html", "export")}
    wanted = Wanted(audio=audio, sources=predictor.source_labels, layout=options.audio_layout, **asked)
    outputs = Outputs(options.out, wanted)
    recordings = shard(select_recordings(inputs, outputs), options.shard)
    outputs.claim(shared=options.shard is not None)
    todo = [each for each in recordings if not (options.skip_existing and outputs.are_complete(each))]
    if options.skip_existing:
        _log.info("skipping %d of %d recordings, which have results", len(recordings) - len(todo), len(recordings))
    start = time.perf_counter()
    seconds = seconds_of(todo, options.jobs)
    errors = analyse(predictor, todo, Writer(outputs, predictor, seconds, options.plot_minutes), options.jobs)
    elapsed = time.perf_counter() - start
    failures = outputs.write_tables(recordings, errors, options.shard)
    if audio and wanted.layout == "s5":
        write_eval_results(outputs, [each for each in recordings if each.name not in errors], predictor, options.shard)
    if options.html and any(outputs.place(each).data.is_file() for each in recordings):
        write_page(options.out)
    done = [seconds[each.name] for each in todo if each.name not in errors]
    print(
        f"{len(done)} recording{'s' * (len(done) != 1)}, {sum(done) / 60:.1f} min of audio in {elapsed:.1f} s "
        f"({sum(done) / elapsed:.0f} times real time); written to {options.out}"
    )
    if errors:
        print(f"{len(errors)} could not be read: see {failures}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main, stopped="stopped; --skip-existing continues where it was")
