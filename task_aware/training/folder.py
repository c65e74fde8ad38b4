"""The folder of a run: whether a run may begin or go on in it, and which of its files belong to which options."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from task_aware.base.errors import CheckpointError, DataError
from task_aware.base.files import read_json, replacing
from task_aware.training.config import RunConfig
from task_aware.training.identity import differences, identified

#: Folder of the logs in a run's folder; each time a run is resumed, it gets another part.
LOGS = "logs"

#: The options of the run, with which it can be resumed.
OPTIONS = "options.json"

#: What scoring writes.
SCORES = ("metrics.json", "detector_only.tsv", "source_only.tsv", "separated.tsv")

#: What the training commands write once they have trained.
RESULTS = (
    "separator.safetensors",
    "denoiser.safetensors",
    "detector.safetensors",
    "separation.png",
    "training.png",
    *SCORES,
)

#: What the loggers write into a part of the logs.
_LOG_FILES = ("metrics.csv", "hparams.yaml", "events.out.tfevents.*")

#: Options that do not influence the results.
_FREE = ("out", "resume", "workers", "cuda_graph", "preview")


def last_checkpoint(out: Path) -> Path:
    """The checkpoint from which `--resume` continues the run in `out`."""
    return out / "checkpoints" / "last.safetensors"


def is_first_process() -> bool:
    """Whether this is the only process of a run, or the one that scores and writes for all."""
    return getattr(rank_zero_only, "rank", 0) == 0


def read_history(out: Path) -> dict[str, list[tuple[int, float]]]:
    """The logged curves of a run, name -> [(step, value)]. Steps logged twice, after resuming, have the later value.

    Raises DataError if a log cannot be read.
    """
    history: dict[str, dict[int, float]] = {}
    for log in sorted((out / LOGS).glob("part_*/metrics.csv"), key=lambda path: int(path.parent.name[5:])):
        try:
            with log.open(newline="") as file:
                for row in csv.DictReader(file):
                    for name, value in row.items():
                        if value and name not in ("step", "epoch"):
                            history.setdefault(name, {})[int(row["step"])] = float(value)
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise DataError(f"{log} does not hold the curves of a run ({error}); restore or remove it") from error
    return {name: sorted(curve.items()) for name, curve in history.items()}


def check_new(out: Path) -> None:
    """Raises CheckpointError if a new run in `out` would replace what is there. Changes nothing."""
    begun = _options_of(out)
    if not (begun and begun["fast_dev_run"]):
        results = [*(out / name for name in RESULTS), last_checkpoint(out)]
        if found := [path.name for path in results if path.exists()]:
            raise CheckpointError(
                f"{out} holds results already ({', '.join(found)}); give another --out, or --resume to continue the "
                "run that is there, or delete it first"
            )
    foreign = [path for path in (out / OPTIONS, *(out / LOGS).glob("part_*")) if path.exists()]
    if begun is None and foreign:
        raise CheckpointError(f"{foreign[0]} is there already, but not from a run of this package; give another --out")


def clear(out: Path) -> None:
    """Removes what a run left in `out` that stopped before its first checkpoint, or that had a few steps only.

    Files are known by their names; others, and folders that hold others, stay.
    """
    remove(out, RESULTS)
    last_checkpoint(out).unlink(missing_ok=True)
    for part in (out / LOGS).glob("part_*"):
        for pattern in _LOG_FILES:
            for file in part.glob(pattern):
                file.unlink()
        if part.is_dir() and not any(part.iterdir()):
            part.rmdir()


def check_scores(out: Path) -> None:
    """Raises CheckpointError if scores written to `out` would replace those of a run."""
    if (out / OPTIONS).exists():
        raise CheckpointError(f"{out} is the folder of a run, whose scores would be replaced; give another --out")


def remove(out: Path, names: Sequence[str]) -> None:
    """Removes results (SCORES or RESULTS) that others are about to replace, which need not be of the same systems."""
    for name in names:
        (out / name).unlink(missing_ok=True)


def write_options(out: Path, config: RunConfig) -> None:
    """Saves the options of a run."""
    with replacing(out / OPTIONS) as temporary:
        temporary.write_text(json.dumps(_options(config), indent=2) + "\n", encoding="utf-8")


def check_same_options(out: Path, config: RunConfig) -> None:
    """Checks that a run may be resumed: with the options that it was started with, or more steps.

    Data and detectors are compared by what they hold, wherever they lie.

    Raises CheckpointError otherwise.
    """
    old, new = _options_of(out), _options(config)
    if old is None:
        raise CheckpointError(f"{out / OPTIONS} does not hold the options of a run; start a new one in another --out")
    if found := differences(old, new):
        if old["devices"] != new["devices"]:
            found.append(
                "each process draws its own clips, so another number changes how many clips a step has, and which"
            )
        raise CheckpointError(
            f"the run in {out} was started with other options ({'; '.join(found)}); resume it with the same (only "
            "--max-steps may grow), or start a new run in another --out"
        )


def _options_of(out: Path) -> dict[str, Any] | None:
    """The saved options of the run in `out`; None if there are none."""
    try:
        options = read_json(out / OPTIONS)
    except DataError:
        return None
    return options if isinstance(options, dict) and {"command", "devices", "fast_dev_run"} <= options.keys() else None


def _options(config: RunConfig) -> dict[str, Any]:
    """The options that influence the results of a run, JSON-serialisable."""
    options = {"command": config.command, **asdict(config)}
    return identified({name: value for name, value in options.items() if name not in _FREE})
