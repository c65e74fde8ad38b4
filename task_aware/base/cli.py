"""What every command does around its work: options from YAML and command line, errors as sentences, logging."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from jsonargparse import ActionConfigFile, ActionYesNo, ArgumentParser

from task_aware.base.errors import TaskAwareError

ConfigType = TypeVar("ConfigType")

RECIPES = Path(__file__).parents[1] / "recipes"
PACKAGED = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))


def set_up_logging() -> None:
    """Our messages and warnings in plain lines; Lightning's own chatter only where it warns."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    for message in (".*does not have many workers.*", ".*pkg_resources.*", ".*LeafSpec.*", ".*num_workers.*"):
        warnings.filterwarnings("ignore", message=message)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def run(
    main: Callable[[Sequence[str] | None], None], stopped: str = "stopped; --resume continues from the last checkpoint"
) -> None:
    """Runs a command; an error that the user can mend is one line on stderr and exit status 2.

    Ctrl-C prints `stopped` and ends with status 130.
    """
    set_up_logging()
    try:
        main(None)
    except (TaskAwareError, ValueError, FileNotFoundError) as error:
        if os.environ.get("TASK_AWARE_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        sys.exit(130)


def add_detector(parser: ArgumentParser) -> None:
    """The option `--detector` of the commands that open a checkpoint."""
    text = "of a separator trained through a detector of your own: package.module:factory, or a checkpoint"
    parser.add_argument("--detector", type=str | None, help=text)


#: Options that are on or off, with the sentence that --help shows; a config may lack some.
FLAGS = {
    "fused": "native operators; --no-fused trains with their PyTorch references",
    "cuda_graph": "a step's losses and gradients as CUDA graphs, which spares the host their launches; on one GPU",
    "resume": "continue the last checkpoint of --out",
    "fast_dev_run": "a few steps and clips, to see that everything runs",
}


def parse(
    config_class: type[ConfigType], description: str, arguments: Sequence[str] | None, *, base: str
) -> ConfigType:
    """Options of a training command: YAML files, then the command line, as a `config_class`.

    `--config` is repeatable, and also takes the names of the files that come with the package, such as `desed`;
    where none is given it is `base`.
    """
    program = f"python -m task_aware.{Path(sys.argv[0]).stem}"
    parser = ArgumentParser(description=description, prog=program, usage=f"{program} [options]")
    text = f"YAML of options, repeatable: a path, or one that comes along ({PACKAGED}; default: {base})"
    parser.add_argument("--config", action=ActionConfigFile, help=text)
    parser.add_argument("--epochs", type=int | None, help="length of the run in epochs of steps_per_epoch steps")
    parser.add_argument("--max-steps", type=int | None, help="length of the run in steps")
    flags = {name: text for name, text in FLAGS.items() if hasattr(config_class, name)}
    for name, text in flags.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, action=ActionYesNo(no_prefix="no-"), default=name == "fused", help=text)
    parser.add_class_arguments(config_class, skip=set(flags))
    options = parser.parse_args(packaged_configs(list(sys.argv[1:] if arguments is None else arguments), base))
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
            f"a run of {schedule.max_steps} steps in epochs of {schedule.steps_per_epoch} trains nothing; "
            "give at least 1 of each"
        )
    return config


def packaged_configs(arguments: list[str], base: str, read: Callable[[Path], str] = str) -> list[str]:
    """Puts paths for the names of configs that come with the package, and `base` first where none is named.

    `read` makes of a path what the parser gets.
    """
    named = False
    resolved: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag == "--config" or (resolved and resolved[-1] == "--config"):
            named = True
            path = Path(value if equals else argument)
            if not path.exists() and (RECIPES / f"{path}.yaml").is_file():
                path = RECIPES / f"{path}.yaml"
            argument = f"--config={read(path)}" if equals else read(path)
        resolved.append(argument)
    return resolved if named else ["--config", read(RECIPES / f"{base}.yaml"), *resolved]
