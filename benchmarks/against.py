"""Compares this checkout with an older commit: builds that one aside, and runs both in turn.

    python benchmarks/against.py COMMIT [help import infer step] [--long]

Both run as a user runs them, as commands in processes of their own, with the same Python and its packages. Before
anything is timed, each runs once, and their results are compared. Then every round runs both, so that a slow moment of
the machine affects both. Times are medians over the rounds, ratios are medians of the rounds' ratios. How a whole run
compares with `import torch` is told in processor time, which other programs change less.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]

#: Lengths of the recordings that `infer` hears. In every other one, clips follow each other; in the rest, each clip is
#: followed by most of a minute of background.
MINUTES = (1, 8, 2, 1, 3, 4, 2, 1, 6, 2)
PAUSE_SECONDS = 50

#: With --long. Starting weighs less.
LONG_MINUTES = (60, 1, 30, 8, 4, 45, 2, 15, 20, 5)

#: Their formats, in turn: suffix, sample rate and channels.
FORMATS = (("wav", 16000, 1), ("flac", 44100, 2), ("mp3", 44100, 2), ("ogg", 48000, 1), ("wav", 48000, 2))

#: Makes them: corpus, folder, and the constants above as JSON.
MAKE_RECORDINGS = """
import json, sys, numpy as np, soundfile, soxr
from itertools import cycle
from pathlib import Path
corpus, folder = map(Path, sys.argv[1:3])
minutes, pause, formats = json.loads(sys.argv[3])
def read(below):
    return [soundfile.read(path, dtype="float32")[0] for path in sorted((corpus / "audio" / below).rglob("*.flac"))]
clips, quiet = read("validation"), np.concatenate(read("train/soundbank/background"))
for k, (length, (suffix, rate, channels)) in enumerate(zip(minutes, cycle(formats))):
    parts = [part for clip in clips[k:] + clips[:k] for part in [clip, *[np.resize(quiet, pause * 16000)] * (k % 2)]]
    sound = soxr.resample(np.resize(np.concatenate(parts), length * 60 * 16000), 16000, rate)
    with soundfile.SoundFile(folder / f"{k}.{suffix}", "w", rate, channels) as file:
        for begin in range(0, len(sound), rate):  # longer blocks crash libsndfile's Ogg encoder
            file.write(np.repeat(sound[begin : begin + rate, None], channels, axis=1))
"""

#: What `step` trains, in words that old versions know too: their default recipes are others.
STEP = """
separator: {preset: small, n_sources: 5}
batch: {strong: 8, weak: 0, unlabelled: 0, strong_seconds: 5.0}
mixing: {n_events: [1, 4], foreground_db: [-12.0, 0.0], background_db: [-25.0, -5.0], gain_db: [-8.0, 8.0]}
losses: {mse: 0.3, frame: 1.0}
optimiser: {max_steps: 30, separation_share: 0.0, anchor_share: 0.0}
"""


class Failure(Exception):
    """What went wrong, in one sentence."""


class Run(NamedTuple):
    """What a run took, in seconds on the clock and of processors, and what came out, for another version to agree."""

    seconds: float
    processor: float
    result: dict[str, float]


def git(*arguments: str) -> str:
    answer = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    if answer.returncode:
        raise Failure(answer.stderr.strip() or f"git {arguments[0]} failed")
    return answer.stdout.strip()


def resolve(commit: str) -> str:
    """The full name of a commit."""
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}")
    except Failure as error:
        raise Failure(
            f"there is no commit {commit!r} in {ROOT}; `git log --oneline` lists them, and a clone without its history "
            "needs `git fetch --unshallow`"
        ) from error


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def python(tree: Path, *arguments: str) -> tuple[float, float, str]:
    """Runs Python with the package of `tree`, and no other; returns seconds, those of processors, and the output."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    with tempfile.TemporaryDirectory() as elsewhere:
        command, start, before = [sys.executable, *arguments], time.perf_counter(), os.times()
        answer = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
        seconds, after = time.perf_counter() - start, os.times()
    if answer.returncode:
        said = (answer.stderr.strip() or answer.stdout.strip() or "nothing").splitlines()[-1]
        raise Failure(f"`python {shlex.join(arguments)}` of {tree} ended with {answer.returncode}: {said}")
    return seconds, sum(after[2:4]) - sum(before[2:4]), answer.stdout


def build(commit: str) -> Path:
    """A folder with the commit's files and its native libraries; made once, then kept.

    Libraries are taken from this checkout if they were built from the same sources; compiling takes minutes.
    """
    cache = Path(os.environ.get("TASK_AWARE_CACHE") or Path.home() / ".cache/task_aware") / "against"
    tree = cache / commit[:12]
    if tree.is_dir():
        return tree
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        made = Path(temporary) / "tree"
        made.mkdir()
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", str(made)], input=archive, check=True)
        about = (
            "from task_aware.ops import _extension as e, _sources\n"
            "import json, pathlib, sys; digest = _sources.sources_digest(pathlib.Path(sys.argv[1]) / 'csrc')\n"
            "print(json.dumps([e.extension.build.get('sources') == digest, str(e.extension.folder)]))"
        )
        same, folder = json.loads(python(ROOT, "-c", about, str(made))[2])
        if same:
            say(f"{commit[:12]} has the kernels of this checkout: taking its libraries")
            for name in ("_C*.so", "_cuda.so"):
                for library in Path(folder).glob(name):
                    shutil.copy(library, made / "task_aware/ops")
        else:
            say(f"building {commit[:12]}; this takes minutes, once")
            command = [sys.executable, "setup.py", "build_ext", "--inplace"]
            answer = subprocess.run(command, cwd=made, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if answer.returncode:
                raise Failure(f"{commit[:12]} cannot be built here; its output ends with:\n{answer.stdout[-2000:]}")
        os.rename(made, tree)
    return tree


class Measures:
    """What is compared. Each takes the folder of a version, and returns a run of it."""

    def __init__(self, scratch: Path, minutes: Sequence[int]) -> None:
        self.scratch = scratch
        self.minutes = minutes
        self.recordings = scratch / "recordings"
        self._corpus: Path | None = None

    @property
    def corpus(self) -> Path:
        """The smallest built-in corpus, made by this checkout for both."""
        if self._corpus is None:
            self._corpus = Path(python(ROOT, "-m", "task_aware.corpus", "--size=tiny", "--quiet")[2].strip())
        return self._corpus

    def torch(self, tree: Path) -> Run:
        """python -c "import torch", to compare with"""
        return Run(*python(tree, "-c", "import torch")[:2], {})

    def help(self, tree: Path) -> Run:
        """train --help"""
        seconds, processor, printed = python(tree, "-m", "task_aware.train", "--help")
        return Run(seconds, processor, {"has options": float("--out" in printed and "--data" in printed)})

    def imports(self, tree: Path) -> Run:
        """from task_aware import Predictor"""
        return Run(*python(tree, "-c", "from task_aware import Predictor")[:2], {})

    def infer(self, tree: Path) -> Run:
        """infer --demo over a folder of ten recordings"""
        if not self.recordings.is_dir():
            self.recordings.mkdir()
            described = json.dumps([self.minutes, PAUSE_SECONDS, FORMATS])
            python(ROOT, "-c", MAKE_RECORDINGS, str(self.corpus), str(self.recordings), described)
        with tempfile.TemporaryDirectory(dir=self.scratch) as out:
            options = ["--demo", str(self.recordings), f"--out={out}", "--device=cpu"]
            seconds, processor, _ = python(tree, "-m", "task_aware.infer", *options)
            result: dict[str, float] = {}
            with (Path(out) / "events.tsv").open(encoding="utf-8", newline="") as table:
                for row in csv.DictReader(table, delimiter="\t"):
                    active = float(row["offset"] or 0) - float(row["onset"] or 0)
                    key = f"seconds of {row['event_label']} in {row['filename']}"
                    result[key] = result.get(key, 0.0) + active
        return Run(seconds, processor, result)

    def step(self, tree: Path) -> Run:
        """a training step through the detector, of one recipe with free sources"""
        recipe = self.scratch / "step.yaml"
        recipe.write_text(STEP, encoding="utf-8")
        with tempfile.TemporaryDirectory(dir=self.scratch) as out:
            detector = tree / "task_aware/assets/detector_builtin.safetensors"
            options = [f"--data={self.corpus}", f"--detector={detector}", f"--config={recipe}", f"--out={out}"]
            _, processor, _ = python(tree, "-m", "task_aware.train", *options, "--accelerator=cpu")
            metrics = json.loads((Path(out) / "metrics.json").read_text(encoding="utf-8"))
        return Run(1 / metrics["steps_per_second"], processor, dict(metrics["separation"]))


WHAT: dict[str, Callable[[Measures, Path], Run]] = {
    "help": Measures.help,
    "import": Measures.imports,
    "infer": Measures.infer,
    "step": Measures.step,
}


def agreement(old: dict[str, float], new: dict[str, float]) -> str:
    """How the results of two versions differ, in a few words: other models find other events, but mostly the same."""
    if old.keys() != new.keys():
        both = sum(min(old[name], new[name]) for name in old.keys() & new.keys())
        return f"{200 * both / (sum(old.values()) + sum(new.values())):.0f} % of what is found is the same"
    largest = max((abs(old[name] - new[name]) for name in old), default=0.0)
    return "same" if largest == 0 else f"differ by up to {largest:.2g}"


def compare(old: Path, new: Path, what: Sequence[str], rounds: int, minutes: Sequence[int] = MINUTES) -> list[str]:
    """The rows of the table."""
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        measures = Measures(Path(scratch), minutes)
        verdicts = {}
        for name in what:
            say(f"{name}: results")
            first, second = WHAT[name](measures, old), WHAT[name](measures, new)
            verdicts[name] = agreement(first.result, second.result)
        runs: dict[str, list[tuple[Run, Run, Run]]] = {name: [] for name in what}
        for number in range(1, rounds + 1):
            say(f"round {number} of {rounds}")
            for name in what:
                runs[name].append((WHAT[name](measures, old), WHAT[name](measures, new), measures.torch(new)))
        for name in what:
            title = (WHAT[name].__doc__ or name).strip()
            before, after = (statistics.median(run[k].seconds for run in runs[name]) for k in (0, 1))
            ratios = sorted(first.seconds / second.seconds for first, second, _ in runs[name])
            shares = [statistics.median(run[k].processor / run[2].processor for run in runs[name]) for k in (0, 1)]
            spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
            of_torch = f"{shares[0]:.2f} / {shares[1]:.2f}"
            lines.append(f"| {title} | {before:.2f} | {after:.2f} | {spread} | {of_torch} | {verdicts[name]} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", metavar="COMMIT", help="the commit to compare with, by any name that git knows")
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"what to compare: {', '.join(WHAT)}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed; default: 5")
    parser.add_argument("--long", action="store_true", help="infer hears ten recordings of 1 to 60 minutes, not to 8")
    options = parser.parse_args()
    if unknown := [name for name in options.what if name not in WHAT]:
        parser.error(f"cannot compare {', '.join(unknown)}; choose from {', '.join(WHAT)}")
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}; give at least 1")
    try:
        commit, minutes = resolve(options.commit), LONG_MINUTES if options.long else MINUTES
        lines = compare(build(commit), ROOT, options.what or list(WHAT), options.rounds, minutes)
    except Failure as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    changed = ", with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {commit[:12]} (old) and")
    print(f"{git('rev-parse', 'HEAD')[:12]}{changed} (new), {options.rounds} rounds, {time.strftime('%Y-%m-%d')}\n")
    print("| | old, s | new, s | old / new | processor time of `import torch`, old / new | results |")
    print("|---|---|---|---|---|---|", *lines, sep="\n")


if __name__ == "__main__":
    main()
