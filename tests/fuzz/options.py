"""Mutated command lines and recipes, through the parsers and checks of all commands; nothing is run."""

from __future__ import annotations

import contextlib
import importlib
import io
from argparse import Action
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from jsonargparse import ArgumentParser, capture_parser

import task_aware
from task_aware.__main__ import commands
from task_aware.base import cli
from task_aware.base.errors import TaskAwareError
from task_aware.data.mixing_config import MixingConfig
from task_aware.infer import check as check_infer
from task_aware.mix import _own_options
from task_aware.training.config import TrainConfig, TrainSedConfig, TrainSepConfig
from task_aware.training.ranges import check_ranges
from task_aware.training.setup import check_run, check_train

from .mutations import WORDS, mutate

TRAINING = {
    "train": (TrainConfig, "builtin", check_train),
    "train_sed": (TrainSedConfig, "detector_builtin", check_run),
    "train_sep": (TrainSepConfig, "denoiser_builtin", check_run),
}


class Refused(ValueError):
    """What a parser says before it ends the program with status 2."""


def is_sentence(error: BaseException) -> bool:
    """A refusal, or an error that this package raises itself; other libraries' do not know the options."""
    if isinstance(error, (TaskAwareError, Refused)) or (isinstance(error, OSError) and error.strerror):
        return True  # of an error of the system, `cli.run` says the file and what it is
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = Path(trace.tb_frame.f_code.co_filename) if trace else Path()
    return type(error) is ValueError and Path(task_aware.__file__).parent in raised_in.parents


def prepare(folder: Path) -> Callable[[Random, Path], None]:
    parsers: dict[str, ArgumentParser] = {}
    for name, command in commands().items():
        main = importlib.import_module(command.module).main
        parsers[name] = capture_parser(main, [])
    options = {
        name: [action for action in parser._actions if action.option_strings] for name, parser in parsers.items()
    }

    def case(random: Random, own: Path) -> None:
        name = random.choice(["train", "train_sed", "train_sep", "mix", "infer", *parsers])
        arguments = command_line(random, own, options[name])
        for place in range(random.choice([0, 1, 2])):
            arguments.insert(random.choice([0, place]), random.choice(["x.wav", "a b", *WORDS]))
        parse(name, parsers[name], [argument for argument in arguments if "\0" not in argument])  # no shell passes it

    return case


def value(random: Random, action: Action) -> str:
    known: list[Any] = [*(action.choices or ()), action.default, 0, 1, 4, 0.5, -1]
    return str(random.choice(known)) if random.random() < 0.5 else random.choice(WORDS)


def command_line(random: Random, own: Path, actions: Sequence[Action]) -> list[str]:
    arguments: list[str] = []
    for _ in range(random.choice([1, 1, 2, 3, 5])):
        action = random.choice(actions)
        option = random.choice(list(action.option_strings))
        text = value(random, action)
        if "config" in option and random.random() < 0.8:
            text = recipe(random, own)
        if random.random() < 0.05:
            option = option[: random.randrange(len(option) + 1)] + random.choice(["", ".", "x", "+", ".help"])
        arguments += random.choice([[option, text], [f"{option}={text}"], [option, text, random.choice(WORDS)]])
    return arguments


def recipe(random: Random, own: Path) -> str:
    """A packaged recipe after changes of its lines, their values or its bytes."""
    original = random.choice(sorted(cli.RECIPES.glob("*.yaml")))
    lines = original.read_text(encoding="utf-8").splitlines()
    for _ in range(random.choice([1, 1, 2, 4])):
        at = random.randrange(len(lines))
        change = random.randrange(5)
        if change <= 2:
            key, colon, _ = lines[at].partition(":")
            lines[at] = f"{key}{colon} {random.choice(WORDS)}"
        elif change == 3:
            lines[at] = random.choice(["  ", "\t", "- ", "", "x: "]) + lines[at]
        else:
            lines.insert(at, random.choice([*lines, *WORDS, "a: &a [*a]", "[" * 1000, "{" * 5000, "? ? ? :"]))
    data = "\n".join(lines).encode()
    path = own / f"{len(list(own.iterdir()))}.yaml"
    path.write_bytes(mutate(random, data) if random.random() < 0.2 else data)
    return str(path)


def parse(name: str, parser: ArgumentParser, arguments: list[str]) -> None:
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            if name in TRAINING:
                config_class, base, check = TRAINING[name]
                config = cli.parse(config_class, "", arguments, base=base)
                check_ranges(config)
                check(config)
            elif name == "mix":
                options = parser.parse_args(cli.packaged_configs(arguments, "builtin", _own_options))
                MixingConfig(**vars(options.mixing))
            else:
                options = parser.parse_args(arguments)
                if name == "infer":
                    check_infer(options)
    except SystemExit as exit_:
        if exit_.code == 2 and "error: " in err.getvalue():
            raise Refused(err.getvalue()) from None
        if exit_.code or not out.getvalue():  # --help
            raise
