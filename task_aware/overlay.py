"""`python -m task_aware.overlay`: makes a harder test set, of validation clips overlaid in pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from task_aware.base import cli
from task_aware.base.errors import DataError
from task_aware.base.files import claim


def main(arguments: Sequence[str] | None = None) -> None:
    """Overlays validation clips in pairs, each clip in one pair at most: a new data folder to score on.

    Its classes are those of the data. See docs/data.md.
    """
    parser = cli.Parser(prog="python -m task_aware.overlay", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="output folder, in DESED's layout")
    parser.add_argument("--data", type=Path | None, help="data folder in DESED's layout; default: the built-in corpus")
    parser.add_argument("--seed", type=int, default=0, help="random seed; each gives different pairs")
    cli.add_channel(parser)
    options = parser.parse_args(arguments)
    # not above: help and mistakes answer without torch
    import numpy as np
    from tqdm import tqdm

    from task_aware.data.audio import write_audio
    from task_aware.data.desed import read_split, split_paths, write_events
    from task_aware.data.overlays import SAMPLE_RATE, overlay
    from task_aware.data.unfinished import begin
    from task_aware.synthesis import builtin_corpus

    table, folder = split_paths(options.out, "validation")
    claim(options.out)
    if table.exists():
        raise DataError(f"{table} exists already; give another --out, or delete this one")
    clips = read_split(options.data or builtin_corpus(), "validation", channel=options.channel).clips
    if len(clips) < 2:
        raise DataError(f"{options.data} has {len(clips)} validation clip; at least two are needed")
    order = np.random.default_rng(options.seed).permutation(len(clips))
    labelled = {}
    begin(
        options.out / "overlay.json",
        {"data": str(options.data or "the built-in corpus"), "number": len(clips) // 2, "seed": options.seed},
        [folder],
        re.compile(r"\.?pair_\d{4,}\.flac(\.\d+\.tmp)?"),
    )
    pairs = order[: len(order) // 2 * 2].reshape(-1, 2)
    for number, (first, second) in enumerate(tqdm(pairs, desc="overlay", unit="pair")):
        name = f"pair_{number:04d}.flac"
        samples, labelled[name] = overlay(clips[first], clips[second])
        write_audio(folder / name, samples, SAMPLE_RATE)
    write_events(table, labelled)
    print(f"written to {options.out}: {len(pairs)} pairs in {folder}, labels in {table}")


if __name__ == "__main__":
    cli.run(main, stopped="stopped; run the same command again to start over")
