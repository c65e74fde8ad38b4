"""What all commands share: options from recipes and the command line, errors in one line, logging."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ActionConfigFile, ActionYesNo, ArgumentParser, DefaultHelpFormatter
from jsonargparse.typing import NonNegativeInt

from task_aware.base.errors import DataError, TaskAwareError, Terminated

ConfigType = TypeVar("ConfigType")

#: What a training command says when it is stopped.
RESUMABLE = "stopped; --resume continues from the last checkpoint"

RECIPES = Path(__file__).parents[1] / "recipes"
PACKAGED = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))


class HelpFormatter(DefaultHelpFormatter):
    """Leaves out what says nothing: defaults of switches, defaults that the text describes, types beside choices."""

    def _get_help_string(self, action: argparse.Action) -> str:
        told = super()._get_help_string(action)
        described = action.default == [] or (action.default is None and "null" not in (action.help or ""))
        if action.nargs == 0 or described:
            told = told.replace(", default: %(default)s", "").replace(" (default: %(default)s)", "")
        if (self._get_type_str(action) or "").startswith(("bool", "Literal[")):
            told = told.replace("type: %(type)s, ", "").replace(" (type: %(type)s)", "")
        return told

    def _get_type_str(self, action: argparse.Action) -> str | None:
        text = super()._get_type_str(action)
        return "Path" if text == "<class 'Path'>" else text


class Parser(ArgumentParser):
    """The parser of all commands."""

    def __init__(self, *args: Any, formatter_class: type = HelpFormatter, **options: Any) -> None:
        super().__init__(*args, formatter_class=formatter_class, **options)

    def show_recipes(self, arguments: Sequence[str]) -> None:
        """Lets --help, if it is among the arguments, show the values of the recipes in them as defaults.

        `arguments` are those of `packaged_configs`.
        """
        if not {"-h", "--help"} & set(arguments):
            return
        for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
            flag, equals, value = argument.partition("=")
            if flag == "--config":
                value = value if equals else following
                recipe = read_recipe(Path(value)) if os.path.isfile(value) else yaml.safe_load(value)
                for option, default in _flat(recipe) if isinstance(recipe, dict) else ():
                    with suppress(KeyError):  # an option that this command does not have
                        self.set_defaults({option: default})


def _flat(options: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The options in a recipe by their names on the command line."""
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def set_up_logging() -> None:
    """Shows our messages and warnings as plain lines."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    logging.captureWarnings(True)
    warnings.showwarning = _show_warning
    chatter = ("does not have many workers", "Experiment logs directory", "in eval mode at the start", "pkg_resources")
    for message in (*chatter, "LeafSpec", "num_workers"):
        warnings.filterwarnings("ignore", message=f".*{message}.*")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
) -> None:
    """Logs a warning: ours is a sentence for the user, another one also says where it comes from."""
    ours = Path(filename).is_relative_to(RECIPES.parent)
    text = f"warning: {message}" if ours else f"{filename}:{lineno}: {category.__name__}: {message}"
    logging.getLogger("py.warnings").warning("%s", text)


def run(main: Callable[[Sequence[str] | None], None], stopped: str = "stopped") -> None:
    """Runs a command. An error that the user can fix is printed as one line on stderr, with exit status 2.

    Ctrl-C prints `stopped` and exits with status 130; SIGTERM does the same with status 143. Where the reader of a
    pipe has gone (`| head`), the command ends without a word, with the status of a program that SIGPIPE ends.
    """
    set_up_logging()
    handler = signal.signal(signal.SIGTERM, _terminate)
    try:
        try:
            main(None)
        finally:
            sys.stdout.flush()  # also what --help printed, which ends in SystemExit
    except BrokenPipeError:
        # what is still to be written at the exit of the interpreter goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (TaskAwareError, ValueError, OSError) as error:
        if os.environ.get("TASK_AWARE_TRACEBACK"):
            raise
        print(f"error: {_sentence(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        print(stopped, file=sys.stderr)
        sys.exit(128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT))
    finally:
        signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)


def _sentence(error: Exception) -> str:
    if not (isinstance(error, OSError) and error.strerror):
        return str(error)
    advice = "; free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{error.filename}: {error.strerror}{advice}" if error.filename else f"{error.strerror}{advice}"


def _terminate(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # another one would stop what is being cleaned up
    raise Terminated


def add_detector(parser: ArgumentParser) -> None:
    """Adds the option `--detector` of the commands that open a checkpoint."""
    text = "for a separator: the detector to use in place of its own, a checkpoint or package.module:factory; needed "
    text += "if it was trained through a detector of your own (docs/detectors.md)"
    parser.add_argument("--detector", type=str | None, help=text)


def add_channel(parser: ArgumentParser) -> None:
    """Adds the option `--channel` of the commands that read recordings."""
    text = "channel of the recordings to take, counted from 0; default: the mean of all, or W where a header says "
    text += "Ambisonic"
    parser.add_argument("--channel", type=NonNegativeInt | None, help=text)


def add_export(parser: ArgumentParser, formats: Sequence[str]) -> None:
    """Adds the option `--export` of the commands that detect events."""
    text = "also write the events into labels/, as files that Audacity, Raven or Praat (textgrid) open, or as JAMS"
    parser.add_argument("--export", choices=formats, help=text)


#: Options that are on or off, with their help. A command has those that its config class has.
FLAGS = {
    "fused": "train with the native operators; --no-fused: with their PyTorch references",
    "cuda_graph": "record each step's losses and gradients as CUDA graphs, to save launch time; on one GPU only",
    "preview": "show in TensorBoard how a validation clip is separated so far; --no-preview: do not",
    "resume": "continue a stopped run from its last checkpoint in --out; needs the same options as before, except "
    "that --max-steps may be larger, and --out, --workers, and of `train` --cuda-graph and --preview, may differ",
    "fast_dev_run": "check that everything runs, with a few steps; the scores mean nothing",
}


def parse(
    config_class: type[ConfigType],
    description: str,
    arguments: Sequence[str] | None,
    *,
    base: str,
    with_data: str | None = None,
) -> ConfigType:
    """Parses the options of a training command, from recipes and then the command line, into a `config_class`.

    `--config` is repeatable, and takes paths and the names of packaged recipes, such as `desed`. Without it, the recipe
    is `base`, or `with_data` where `--data` is given.
    """
    program = f"python -m task_aware.{Path(sys.argv[0]).stem}"
    parser = Parser(description=description, prog=program, usage=f"{program} [options]")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    default = f"{base}, or {with_data} with --data" if with_data else base
    base = default_recipe(arguments, base, with_data or base)
    text = f"recipe: the path of a YAML file of options, or one of {PACKAGED}; repeatable, later ones override earlier "
    text += f"ones. Default: {default}; a recipe of your own replaces it, so give --config {base} first to build on "
    text += "it. "
    text += "The defaults in this help are those of the recipes"
    parser.add_argument("--config", action=ActionConfigFile, help=text)
    parser.add_argument("--epochs", type=int | None, help="length of the run in epochs (of steps_per_epoch steps)")
    parser.add_argument("--max-steps", type=int | None, help="length of the run in steps")
    flags = {name: text for name, text in FLAGS.items() if hasattr(config_class, name)}
    for name, text in flags.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, action=ActionYesNo(no_prefix="no-"), default=getattr(config_class, name), help=text)
    parser.add_class_arguments(config_class, skip=set(flags))
    given = packaged_configs(arguments, base)
    parser.show_recipes(given)
    options = parser.parse_args(given)
    epochs, max_steps = options.pop("epochs"), options.pop("max_steps")
    options.pop("config")
    values = vars(parser.instantiate_classes(options))
    config = config_class(**{name: values[name] for name in values if not name.startswith("__")})
    schedule = config.schedule  # type: ignore[attr-defined]
    if epochs is not None:
        schedule.max_steps = epochs * schedule.steps_per_epoch
    if max_steps is not None:
        schedule.max_steps = max_steps
    if schedule.max_steps < 1 or schedule.steps_per_epoch < 1:
        raise ValueError(
            f"max_steps is {schedule.max_steps} and steps_per_epoch is {schedule.steps_per_epoch}; "
            "both must be at least 1"
        )
    return config


def read_recipe(path: Path) -> dict[str, Any]:
    """The options in a recipe. Raises DataError if it is not a YAML file of options."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, RecursionError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as a recipe ({error}); correct this YAML file") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no options but {type(content).__name__}; write lines such as `seed: 1`")
    return content


def default_recipe(arguments: Iterable[str], builtin: str, with_data: str) -> str:
    """The recipe that a command takes where no `--config` is given: by whether `--data` is."""
    return with_data if any(argument.partition("=")[0] == "--data" for argument in arguments) else builtin


def packaged_configs(arguments: list[str], base: str, read: Callable[[Path], str] = str) -> list[str]:
    """Replaces the names of packaged recipes in `--config` by their paths, and adds `base` if there is no `--config`.

    `read` turns a path into what the parser gets in its place.
    """
    named = False
    resolved: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag == "--config" or (resolved and resolved[-1] == "--config"):
            named = True
            path = Path(value if equals else argument)
            if not os.path.exists(path) and os.path.isfile(RECIPES / f"{path}.yaml"):
                path = RECIPES / f"{path}.yaml"
            if os.path.isfile(path):
                read_recipe(path)  # what is wrong with it is said here, in one sentence
            argument = f"--config={read(path)}" if equals else read(path)
        resolved.append(argument)
    return resolved if named else ["--config", read(RECIPES / f"{base}.yaml"), *resolved]
