"""Which runs the rows of the tables need, and with which options."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from jsonargparse import Namespace

from task_aware.base import cli
from task_aware.base.errors import DataError
from task_aware.models.opening import BUILTIN_DETECTOR
from task_aware.study.jobs import Job
from task_aware.study.systems import DETECTOR_ALONE, ROWS, RUNS, loss_options
from task_aware.training.config import TrainConfig
from task_aware.training.frozen import comes_along


def train_config(configs: Sequence[str]) -> TrainConfig:
    """The options of `train` with these recipes."""
    return cli.parse(TrainConfig, "", configs, base="builtin")


def shared_detector(options: Namespace, detector_config: str, common: Sequence[str]) -> Path:
    """The detector of all runs, chosen as by `train`: the given one, the packaged one, or one that is trained here."""
    if options.detector is not None:
        return Path(options.detector)
    if comes_along(options.data, detector_config):
        return BUILTIN_DETECTOR
    folder = options.out / "detector"
    arguments = [f"--config={detector_config}", f"--out={folder}", *common]
    job = Job("detector", folder, "train_sed", tuple(arguments + _if_given(options, "rirs")))
    if not job.is_done:
        print(f"training the detector first; log: {folder / 'log.txt'}", flush=True)
        if reason := job.work():
            raise DataError(f"the detector, which all rows need, could not be trained: {reason}")
    return folder / "detector.safetensors"


def make_jobs(options: Namespace, configs: list[str], detector: Path, data: Path) -> Iterator[Job]:
    """The jobs that the rows need: all rows with the first seed, then with the next."""
    config = train_config(configs)
    common = common_options(options, data)
    training = [*common, f"--detector={detector}", *_if_given(options, "rirs", "max_steps")]
    training += ["--fast-dev-run"] if options.fast_dev_run else []
    begin: dict[str, list[str]] = {
        "evaluate": [str(detector), *common],
        "train": [*configs, *training],
        "train_sep": [
            f"--config={options.denoiser_config}",
            f"--mixing={json.dumps(asdict(config.mixing))}",
            *training,
        ],
    }
    needed = dict.fromkeys(ROWS[name].run for name in options.rows)
    for seed in range(options.seeds):
        for name in needed:
            run, folder = RUNS[name], options.out / name / f"seed{seed}"
            if name == DETECTOR_ALONE and seed > 0:
                continue
            losses = loss_options(run.losses, config.losses) if run.losses else []
            arguments = [*begin[run.command], *losses, *run.options, f"--out={folder}"]
            arguments += [f"--seed={seed}"] if name != DETECTOR_ALONE else []
            title = f"{name}, seed {seed}"
            yield Job(title, folder, run.command, tuple(arguments), name)
            model = str(folder / run.checkpoint if run.checkpoint else detector)
            for test in options.test:
                out = folder / scores_folder(test)
                scoring = (model, *common_options(options, test), f"--out={out}")
                yield Job(f"{title}, on {test.name}", out, "evaluate", scoring, name, test.name)


def _if_given(options: Namespace, *names: str) -> list[str]:
    return [f"--{name.replace('_', '-')}={options[name]}" for name in names if options[name] is not None]


def common_options(options: Namespace, data: Path) -> list[str]:
    return [f"--data={data}", f"--accelerator={options.accelerator}", *_if_given(options, "channel")]


def scores_folder(test: Path) -> str:
    return f"on_{test.name}"
