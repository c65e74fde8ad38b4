"""Collects the results of finished runs, says what they mean, and checks that the runs had the same options."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from task_aware.base.errors import CheckpointError, DataError
from task_aware.base.files import read_json, replacing
from task_aware.data.desed import read_split
from task_aware.models.crnn import load_detector
from task_aware.models.opening import open_model, pick_device
from task_aware.scoring.separation import has_separated
from task_aware.study.jobs import Job
from task_aware.study.systems import ROWS, RUNS
from task_aware.study.tables import Result, n_parameters, read_counts, real_time_factor
from task_aware.training.identity import differences, identified

#: The options that influence the results of a run.
DECISIVE = ("data", "rirs", "channel", "detector", "config", "denoiser_config", "recipe", "max_steps", "fast_dev_run")


def check_same(path: Path, options: Namespace) -> None:
    """Saves the decisive options to `path`; raises CheckpointError if other ones are saved there.

    Data, detectors and recipes are compared by what they hold.
    """
    given = identified({name: options[name] for name in DECISIVE})
    if path.is_file() and (other := differences(read_json(path), given)):
        raise CheckpointError(
            f"the runs in {path.parent} were started with other options ({'; '.join(other)}); give the same, "
            "or another --out"
        )
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(given, indent=2) + "\n", encoding="utf-8")


def collect(options: Namespace, jobs: Sequence[Job], detector: Path, data: Path, test: str = "") -> dict[str, Result]:
    """The results on the validation clips of `data`, for the rows of which at least one seed is done."""
    labels = load_detector(detector).labels
    split = read_split(data, "validation", labels)
    device = pick_device(options.accelerator)
    results = {}
    for name in options.rows:
        row = ROWS[name]
        folders = [job.folder for job in jobs if (job.run, job.test) == (row.run, test) and job.is_done]
        if folders:
            counts = [read_counts(folder, row.system, split, labels) for folder in folders]
            checkpoint = RUNS[row.run].checkpoint
            home = folders[0].parent if test else folders[0]
            model = open_model(home / checkpoint if checkpoint else detector)
            speed = real_time_factor(model, row.system, split.clips[0], device)
            results[name] = Result(counts, n_parameters(model), speed)
    return results


def describe(options: Namespace, data: Path, detector: Path) -> str:
    """A note for below the tables: on what they were measured, and how."""
    device = pick_device(options.accelerator)
    length = f", {options.max_steps} steps per run" if options.max_steps else ""
    fast = " This was a --fast-dev-run: the scores mean nothing." if options.fast_dev_run else ""
    return (
        f"Validation clips of {data}, detector {detector}, recipe {options.recipe}{length}. F1: mean and standard "
        f"deviation over seeds. Intervals: 95 %, paired bootstrap over clips, {options.resamples} draws; they do not "
        f"cover what another training would change. Real-time factor: one clip at a time on {device.type}.{fast}"
    )


def warn_unseparated(jobs: Sequence[Job]) -> str:
    """A sentence that names the runs whose sources have not separated; empty if all have."""
    titles = []
    for job in jobs:
        path = job.folder / "metrics.json"
        metrics = read_json(path)
        try:
            separated = "separation" not in metrics or has_separated(metrics["separation"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{path} does not hold the scores of a run; remove it to have the run repeated") from error
        if not separated:
            titles.append(job.title)
    if not titles:
        return ""
    return (
        f" The sources have not separated yet in {'; '.join(titles)}: their scores say nothing about separation. "
        "Train longer (--max-steps, in another --out)."
    )
