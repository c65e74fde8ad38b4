"""`python -m task_aware.across`: separators before detectors that they were not trained with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from task_aware import cli
from task_aware.data.corpus import builtin_corpus
from task_aware.data.desed import Split, read_split
from task_aware.data.labels import Event
from task_aware.errors import CheckpointError
from task_aware.evaluate import batches_of, pick_device
from task_aware.metrics import decode, event_counts
from task_aware.models.detector import Detector, features_of, median_frames_of
from task_aware.models.protocol import open_detector
from task_aware.models.system import Separator, check_detector, merge_sources
from task_aware.significance import bootstrap, interval, macro_f1
from task_aware.tables import aligned

#: Clips at a time.
BATCH = 8


class System(NamedTuple):
    """What hears a clip: separator and detector, named by their keys; without a separator the detector alone."""

    separator: str | None
    run: int
    detector: str


def find_separators(place: Path) -> list[Path]:
    """The separators of a system's runs: `place` itself, or those below it, such as a row of the tables has."""
    found = [place] if place.is_file() else sorted(place.glob("**/separator.safetensors"))
    if not found:
        raise CheckpointError(f"there is no separator.safetensors in {place}; give one, or a folder of runs")
    return found


def hear(separator: Separator, detector: Detector, mel: Tensor, alone: Tensor) -> Tensor:
    """Merged frame probabilities `[B, T', C]`: the separator scales what it reads as its own detector does.

    Args:
        separator: of linear mel `[B, F, T]`.
        detector: what hears its sources.
        mel: the mixtures.
        alone: the detector's own frame probabilities of them, `[B, T', C]`.
    """
    sources = separator.separate(mel).mel
    frame = detector(features_of(detector, sources.flatten(0, 1))).frame
    return merge_sources(frame.unflatten(0, sources.shape[:2]), alone, separator.merge)


@torch.no_grad()
def count(
    split: Split, detectors: Mapping[str, Detector], separators: Mapping[str, list[Separator]], device: torch.device
) -> dict[System, np.ndarray]:
    """The counts of every separator before every detector, and of the detectors alone."""
    first = next(iter(detectors.values()))
    events: dict[System, dict[str, list[Event]]] = defaultdict(dict)
    for clips, waveform in batches_of(split, first.feature_config, device=device, batch_size=BATCH):
        mel = first.feature_config.mel(waveform)
        frames: dict[System, Tensor] = {}
        for heard, detector in detectors.items():
            alone = frames[System(None, 0, heard)] = detector(features_of(detector, mel)).frame
            for name, runs in separators.items():
                for run, separator in enumerate(runs):
                    frames[System(name, run, heard)] = hear(separator, detector, mel, alone)
        seconds = waveform.shape[1] / first.feature_config.sample_rate
        for system, frame in frames.items():
            detector = detectors[system.detector]
            for clip, probabilities in zip(clips, frame.float().cpu().numpy(), strict=True):
                events[system][clip.filename] = decode(
                    probabilities,
                    detector.labels,
                    detector.frame_seconds,
                    median_frames=median_frames_of(detector),
                    duration=seconds,
                )
    return {system: event_counts(split.reference, found, first.labels) for system, found in events.items()}


def compare(counts: Mapping[System, np.ndarray], resamples: int) -> list[str]:
    """A Markdown table: F1 of each system before each detector, and the change, the mean over all detectors."""
    runs: dict[tuple[str | None, str], list[np.ndarray]] = defaultdict(list)
    for system, found in counts.items():
        runs[system.separator, system.detector].append(found)
    drawn = bootstrap({str(key): found for key, found in runs.items()}, resamples=resamples)
    detectors = list(dict.fromkeys(detector for _, detector in runs))
    rows = [["event F1, macro (%)", "runs", *detectors, "change, mean over detectors [95 %]"]]
    for name in dict.fromkeys(separator for separator, _ in runs):
        scores = [[100 * float(macro_f1(run.sum(0))) for run in runs[name, heard]] for heard in detectors]
        spread = [f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "" for values in scores]
        cells = [f"{np.mean(values):.1f}{sd}" for values, sd in zip(scores, spread, strict=True)]
        change = ""
        if name is not None:
            alone = [100 * float(macro_f1(runs[None, heard][0].sum(0))) for heard in detectors]
            mean = np.mean([np.mean(values) - own for values, own in zip(scores, alone, strict=True)])
            low, high = interval(
                100 * np.mean([drawn[str((name, heard))] - drawn[str((None, heard))] for heard in detectors], axis=0)
            )
            change = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
        rows.append([name or "detector alone", str(len(scores[0])), *cells, change])
    return aligned(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Scores separators before several detectors: whether separation serves more than the one that it was trained with.

    Detectors must have the labels and the front end of the separators' own. Intervals: paired bootstrap over clips.
    """
    parser = ArgumentParser(prog="python -m task_aware.across", description=main.__doc__)
    text = "detectors: checkpoints, or package.module:factory of your own"
    parser.add_argument("--detectors", type=str, nargs="+", required=True, help=text)
    text = "separators: checkpoints, or folders whose runs are averaged, such as OUT/strong_mse of the tables"
    parser.add_argument("--separators", type=Path, nargs="+", required=True, help=text)
    text = "folders in DESED's layout, whose validation clips are heard; default: the built-in corpus"
    parser.add_argument("--data", type=Path, nargs="+", default=[], help=text)
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto")
    options = parser.parse_args(arguments)
    device = pick_device(options.accelerator)
    separators = {
        str(place): [Separator.from_checkpoint(path).to(device) for path in find_separators(place)]
        for place in options.separators
    }
    detectors = {}
    for name in options.detectors:
        detector = detectors[name] = open_detector(name)
        cast(nn.Module, detector).to(device).eval()
        for place, runs in separators.items():
            own = runs[0].detector
            check_detector(detector, list(own.labels), own.feature_config, place)
    for data in options.data or [builtin_corpus()]:
        split = read_split(data, "validation", next(iter(detectors.values())).labels)
        table = compare(count(split, detectors, separators, device), options.resamples)
        print("\n".join([f"{len(split.clips)} clips of {data}", "", *table, ""]))


if __name__ == "__main__":
    cli.run(main)
