"""`python -m task_aware.ablation`: the paper's Tables 1 and 2 on the data at hand."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from task_aware.base import cli
from task_aware.base.errors import CheckpointError, DataError
from task_aware.data.desed import read_split
from task_aware.models.crnn import load_detector
from task_aware.models.opening import BUILTIN_DETECTOR, open_model, pick_device
from task_aware.scoring.separation import has_separated
from task_aware.study.systems import DETECTOR_ALONE, ONLY_DEFAULT_RECIPE, ROWS, RUNS, loss_options
from task_aware.study.tables import Comparison, Result, n_parameters, read_counts, real_time_factor
from task_aware.synthesis import builtin_corpus
from task_aware.training.config import TrainConfig
from task_aware.training.frozen import comes_along
from task_aware.training.loop import last_checkpoint

#: The options that decide the numbers of a run.
DECISIVE = ("data", "rirs", "detector", "config", "denoiser_config", "recipe", "max_steps", "fast_dev_run")

#: Steps of a run in a `--fast-dev-run`: one of each stage.
FAST_STEPS = 2

#: Started once, with everything imported; each run is a process that splits off from it, and may fail alone.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["task_aware.train_sep", "task_aware.study.tables"])


def make_parser() -> ArgumentParser:
    """The options."""
    program = "python -m task_aware.ablation"
    parser = ArgumentParser(prog=program, usage=f"{program} --out DIR [options]", description=main.__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the runs and tables; the same again goes on where it was")
    add("--data", type=Path | None, help="folder in DESED's layout; default: the built-in corpus")
    add("--rirs", type=Path | None, help="room impulse responses; default: DATA/rirs where it exists")
    add("--detector", type=Path | None, help="detector to freeze; default: the built-in corpus' own, or one trained "
        "on DATA first, by the detector_config of --config")  # fmt: skip
    add("--config", action="append", help=f"options of train, repeatable: a path, or one of {cli.PACKAGED}; "
        "default: builtin")  # fmt: skip
    add(
        "--denoiser-config", default="denoiser_builtin", help="options of train_sep; its mixtures are those of --config"
    )
    add("--recipe", choices=("default", "paper"), default="default", help="paper: --config paper after the others")
    add(
        "--rows", nargs="+", choices=tuple(ROWS), help="default: all of both tables; the detector alone is always there"
    )
    add("--test", nargs="+", default=[], type=Path, help="further folders in DESED's layout: the trained systems are "
        "also scored on their validation clips, with tables of their own")  # fmt: skip
    add("--seeds", type=int, default=3, help="runs of each row, with the seeds 0, 1, ...")
    add("--max-steps", type=int | None, help="length of all runs but the detector's, in steps")
    add("--resamples", type=int, default=1000, help="draws of clips for the intervals")
    add("--accelerator", choices=("auto", "cpu", "gpu"), default="auto")
    add("--fast-dev-run", action="store_true", help="one seed, two steps of each row, to see that everything runs")
    return parser


@dataclass(frozen=True)
class Job:
    """A command to run until `folder` has its `metrics.json`.

    Attributes:
        run: the key of `RUNS` that it trains or scores.
        test: name of the further folder that it scores the run on; empty for the run itself.
    """

    title: str
    folder: Path
    command: str
    arguments: tuple[str, ...]
    run: str = ""
    test: str = ""

    @property
    def is_done(self) -> bool:
        return (self.folder / "metrics.json").is_file()

    def work(self) -> str:
        """Runs the command, or goes on with it; returns why it failed, empty where it did not.

        Its output goes to `folder/log.txt`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "log.txt"
        log.touch()  # also where the process dies before it writes
        resume = ["--resume"] if last_checkpoint(self.folder).is_file() else []
        process = PROCESSES.Process(target=_work, args=(self.command, [*self.arguments, *resume], log))
        process.start()
        try:
            process.join()
        except KeyboardInterrupt:
            process.join()  # the terminal has interrupted it too
            raise
        if self.is_done:
            return ""
        if process.exitcode == 130:
            raise KeyboardInterrupt
        lines = log.read_text(errors="replace").strip().splitlines()
        return f"exit status {process.exitcode}: {lines[-1][:300] if lines else 'no output'} (see {log})"


def _work(command: str, arguments: list[str], log: Path) -> None:
    """A process' work: `python -m task_aware.COMMAND ARGUMENTS`, its output at the end of `log`."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print("$", shlex.join(["python", "-m", f"task_aware.{command}", *arguments]), flush=True)
    module = importlib.import_module(f"task_aware.{command}")
    sys.argv = [str(module.__file__), *arguments]
    sys.modules["__main__"] = module  # what Lightning starts again for further devices
    cli.run(module.main)


def _end_with_parent() -> None:
    """Two processes must not write to one folder: where the command is killed, its run ends too."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def shared_detector(options: Namespace, detector_config: str, common: Sequence[str]) -> Path:
    """The detector of all runs, as for `train`: given, the built-in corpus' own, or trained here once."""
    if options.detector is not None:
        return Path(options.detector)
    if comes_along(options.data, detector_config):
        return BUILTIN_DETECTOR
    folder = options.out / "detector"
    arguments = [f"--config={detector_config}", f"--out={folder}", *common]
    job = Job("detector", folder, "train_sed", tuple(arguments + _if_given(options, "rirs")))
    if not job.is_done:
        print(f"the detector is trained first: {folder / 'log.txt'}", flush=True)
        if reason := job.work():
            raise DataError(f"the detector, which all rows need, could not be trained; {reason}")
    return folder / "detector.safetensors"


def _if_given(options: Namespace, *names: str) -> list[str]:
    return [f"--{name.replace('_', '-')}={options[name]}" for name in names if options[name] is not None]


def train_config(configs: Sequence[str]) -> TrainConfig:
    """The options that `configs` give to train."""
    return cli.parse(TrainConfig, "", configs, base="builtin")


def make_jobs(options: Namespace, configs: list[str], detector: Path, data: Path) -> Iterator[Job]:
    """The jobs that the rows need; one seed of all before the next."""
    config = train_config(configs)
    common = _common(options, data)
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
                out = folder / _test_folder(test)
                scoring = (model, *_common(options, test), f"--out={out}")
                yield Job(f"{title}, on {test.name}", out, "evaluate", scoring, name, test.name)


def _common(options: Namespace, data: Path) -> list[str]:
    return [f"--data={data}", f"--accelerator={options.accelerator}"]


def _test_folder(test: Path) -> str:
    return f"on_{test.name}"


def run_all(jobs: Sequence[Job]) -> list[str]:
    """Runs the jobs one after another, whatever becomes of each; returns what failed and why."""
    failed = []
    for number, job in enumerate(jobs, start=1):
        print(f"[{number}/{len(jobs)}] {job.title}: ", end="", flush=True)
        if job.is_done:
            print("done before", flush=True)
            continue
        start = time.monotonic()
        reason = job.work()
        print(f"failed, {reason}" if reason else f"{(time.monotonic() - start) / 60:.1f} min", flush=True)
        if reason:
            failed.append(f"{job.title}: {reason}")
    return failed


def collect(options: Namespace, jobs: Sequence[Job], detector: Path, data: Path, test: str = "") -> dict[str, Result]:
    """The results, on the validation clips of `data`, of the rows whose runs are done, at least with one seed."""
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


def check_same(path: Path, options: Namespace) -> None:
    """Keeps the decisive options beside the runs; CheckpointError where `path` has those of other runs."""
    given: dict[str, Any] = {name: options[name] for name in DECISIVE}
    given = json.loads(json.dumps(given, default=str))
    if path.is_file():
        kept = json.loads(path.read_text())
        other = [f"{name} was {kept.get(name)} and is {given[name]}" for name in given if kept.get(name) != given[name]]
        if other:
            raise CheckpointError(
                f"the runs in {path.parent} began with other options ({'; '.join(other)}); give those, or another --out"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(given, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains and scores the systems of the paper's Tables 1 and 2 and prints the tables.

    What is done is kept: the same command goes on where it was stopped. Exit status 1 where a run failed; the others
    are done nevertheless.
    """
    options = make_parser().parse_args(arguments)
    names = [test.name for test in options.test]
    if len({*names, ""}) <= len(names):
        raise ValueError(f"the folders of --test are called {', '.join(names)}; their names must differ")
    if options.seeds < 1 or options.resamples < 1:
        raise ValueError(f"--seeds is {options.seeds} and --resamples {options.resamples}; give at least 1 of each")
    if options.fast_dev_run:
        options.seeds, options.max_steps = 1, FAST_STEPS
    rows = options.rows or [name for name in ROWS if options.recipe == "default" or name not in ONLY_DEFAULT_RECIPE]
    options.rows = [name for name in ROWS if name in {*rows, DETECTOR_ALONE}]
    configs = [f"--config={name}" for name in options.config or ["builtin"]]
    configs += ["--config=paper"] if options.recipe == "paper" else []
    data = options.data or builtin_corpus(size="tiny" if options.fast_dev_run else "full")
    check_same(options.out / "ablation.json", options)
    fast = ["--fast-dev-run"] if options.fast_dev_run else []
    detector = shared_detector(options, train_config(configs).detector_config, [*_common(options, data), *fast])
    jobs = list(make_jobs(options, configs, detector, data))
    failed = run_all(jobs)
    unseparated = warn_unseparated([job for job in jobs if job.is_done])
    for name, folder, out in [
        ("", data, options.out),
        *((t.name, t, options.out / _test_folder(t)) for t in options.test),
    ]:
        results = collect(options, jobs, detector, folder, name)
        if DETECTOR_ALONE in results:
            comparison = Comparison(results, resamples=options.resamples)
            note = describe(options, folder, detector) + unseparated
            comparison.write(out, note)
            print(f"\n{comparison.markdown()}\n{note}\nwritten to {out}: tables.md, tables.csv, tables.png")
    if failed:
        print("\n".join(["these runs failed; the same command tries them again:", *failed]), file=sys.stderr)
        sys.exit(1)


def describe(options: Namespace, data: Path, detector: Path) -> str:
    """What the tables were measured on."""
    device = pick_device(options.accelerator)
    length = f", {options.max_steps} steps a run" if options.max_steps else ""
    fast = " A fast development run: the numbers mean nothing." if options.fast_dev_run else ""
    return (
        f"Validation clips of {data}, detector {detector}, recipe {options.recipe}{length}. F1: mean and standard "
        f"deviation over seeds. Intervals: paired bootstrap over clips, {options.resamples} draws; they leave out "
        f"what another training would change. Real-time factor: one clip at a time on {device.type}.{fast}"
    )


def warn_unseparated(jobs: Sequence[Job]) -> str:
    """A sentence on the separators that were trained too little to separate anything; empty where there are none."""
    titles = []
    for job in jobs:
        metrics = json.loads((job.folder / "metrics.json").read_text())
        if "separation" in metrics and not has_separated(metrics["separation"]):
            titles.append(job.title)
    if not titles:
        return ""
    return (
        f" The sources have not separated yet in {'; '.join(titles)}: train longer before reading anything into them."
    )


if __name__ == "__main__":
    cli.run(main, stopped="stopped; the same command goes on where it was")
