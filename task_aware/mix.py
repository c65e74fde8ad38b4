"""`python -m task_aware.mix`: writes mixtures as training makes them, to listen to or as a fixed set."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ActionConfigFile

from task_aware.base import cli
from task_aware.base.errors import DataError
from task_aware.base.files import claim
from task_aware.data.mixing_config import MixingConfig
from task_aware.training.config import TrainConfig

if TYPE_CHECKING:
    from task_aware.data.soundscapes import Soundscape


def _own_options(path: Path) -> str:
    """A recipe as JSON, without the options that only the training commands have."""
    if not os.path.isfile(path):
        return str(path)
    trained = {field.name for field in fields(TrainConfig)} - {"data", "rirs", "channel", "out", "seed", "mixing"}
    return json.dumps(
        {name: value for name, value in cli.read_recipe(path).items() if name not in trained}, default=str
    )


def make_parser() -> cli.Parser:
    """The command's options."""
    program = "python -m task_aware.mix"
    parser = cli.Parser(prog=program, usage=f"{program} --out DIR [options]", description=main.__doc__)
    text = f"recipe, repeatable: a path, or one of {cli.PACKAGED}; only its mixing options are used; default: builtin"
    parser.add_argument("--config", action=ActionConfigFile, help=text)
    parser.add_argument("--out", type=Path, required=True, help="output folder, in DESED's layout")
    parser.add_argument("-n", "--number", type=int, default=100, help="number of mixtures")
    parser.add_argument("--data", type=Path | None, help="data folder in DESED's layout; default: the built-in corpus")
    parser.add_argument(
        "--rirs", type=Path | None, help="folder of room impulse responses; default: DATA/rirs if it exists"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a mixture in seconds")
    parser.add_argument("--seed", type=int, default=0, help="random seed; each gives different mixtures")
    parser.add_argument("--plot", action="store_true", help="also draw each mixture")
    cli.add_channel(parser)
    parser.add_class_arguments(MixingConfig, "mixing")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes mixtures as training makes them, with their parts and labels: a data folder for other commands.

    Its classes are those of the data. See docs/data.md.
    """
    parser = make_parser()
    given = cli.packaged_configs(list(sys.argv[1:] if arguments is None else arguments), "builtin", _own_options)
    parser.show_recipes(given)
    options = parser.parse_args(given)
    if options.number < 1:
        raise ValueError(f"--number is {options.number}; give at least 1")
    # not above: help and mistakes answer without torch
    from tqdm import tqdm

    from task_aware.data.desed import split_paths, write_events
    from task_aware.data.soundscapes import BATCH, SAMPLE_RATE, own_files, soundscapes, write_soundscape
    from task_aware.data.unfinished import begin
    from task_aware.plots.mixture import draw_soundscape
    from task_aware.synthesis import open_corpus

    table, folder = split_paths(options.out, "synthetic")
    claim(options.out)
    if table.exists():
        raise DataError(f"{table} exists already; give another --out, or delete this one")
    corpus = open_corpus(options.data, options.rirs, sample_rate=SAMPLE_RATE, channel=options.channel)
    mixing = MixingConfig(**vars(options.mixing))
    mixer = corpus.mixer(mixing, n_sources=mixing.n_events[1], seconds=options.seconds, seed=options.seed)

    data = str(options.data or "the built-in corpus")
    recipe = {"data": data, "number": options.number, "seed": options.seed, "seconds": options.seconds}
    recipe |= {"channel": options.channel} if options.channel is not None else {}
    begin(
        options.out / "mix.json",
        {**recipe, "mixing": asdict(mixer.config)},
        [folder, folder.parent / "images"],
        own_files(corpus.encoder.labels),
    )

    def write(name: str, soundscape: Soundscape) -> None:
        write_soundscape(folder.parent, name, soundscape)
        if options.plot:
            draw_soundscape(folder.parent / "images" / name / "mixture.png", soundscape, title=name)

    labelled = {}
    gains = []
    threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        made = enumerate(soundscapes(mixer, options.number, corpus.encoder.labels))
        with tqdm(total=options.number, desc="mixing", unit="mixture") as bar:
            pending = []
            for index, soundscape in made:
                name = f"{index:05d}"
                pending.append(threads.submit(write, name, soundscape))
                labelled[f"{name}.wav"] = soundscape.events
                gains.append(soundscape.gain)
                while len(pending) > (2 * BATCH if index + 1 < options.number else 0):
                    pending.pop(0).result()
                    bar.update()
    finally:
        threads.shutdown(cancel_futures=True)
    write_events(table, labelled)
    if turned_down := [gain for gain in gains if gain < 1]:
        print(
            f"{len(turned_down)} of {len(gains)} mixtures exceeded full scale and were turned down, by up to "
            f"{-20 * math.log10(min(turned_down)):.1f} dB"
        )
    print(
        f"written to {options.out}: {len(gains)} mixtures in {folder}, their parts in {folder.parent / 'images'}, "
        f"labels in {table}"
    )


if __name__ == "__main__":
    cli.run(main, stopped="stopped; run the same command again to start over")
