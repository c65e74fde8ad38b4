"""`score.py OUT RUNS`: speech frames found in the mixtures of `make_data.py`, with RUNS/{squared,task}{0,1,2}."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from task_aware.data.desed import read_split
from task_aware.data.labels import LabelEncoder
from task_aware.models.listener import resampler
from task_aware.models.listeners import weights_of
from task_aware.models.opening import open_detector
from task_aware.models.system import Separator
from task_aware.training.losses import si_sdr

FRAMES, SECONDS = 313, 0.032
THRESHOLDS = np.arange(0.02, 0.99, 0.02)
SYSTEMS = {"alone": ["alone"], "true speech": ["true speech"]} | {
    name: [f"{name}{seed}" for seed in range(3)] for name in ("squared", "task")
}


class Other(nn.Module):
    """silero-vad's network for 8 kHz, which nothing was trained through."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torch.jit.load(weights_of("silero_vad", "data", "silero_vad.jit", install="silero-vad"))
        self.resample = resampler(16000, 8000)

    def forward(self, waveform: Tensor) -> Tensor:
        low = self.resample(waveform)
        self.network.reset_states()
        chunks = nn.functional.pad(low, (0, -low.shape[1] % 256)).split(256, 1)
        return torch.cat([self.network(chunk, 8000) for chunk in chunks], 1)


@torch.no_grad()
def hear(mixtures: Path, runs: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels `[clips, T]`; by system the probabilities of both networks and SI-SDR."""
    detector, other = open_detector("silero_vad"), Other()
    split, clean = read_split(mixtures, "validation", ("Speech",)), np.load(mixtures / "clean.npz")
    labels = np.stack([LabelEncoder(["Speech"]).strong(clip.events, FRAMES, SECONDS)[:, 0] for clip in split.clips])
    mixed = torch.from_numpy(np.stack([soundfile.read(clip.path, dtype="float32")[0] for clip in split.clips]))
    speech = torch.from_numpy(np.stack([clean[clip.filename].astype(np.float32) for clip in split.clips]))
    found: dict[str, np.ndarray] = {}
    for run in (run for names in SYSTEMS.values() for run in names):
        file = runs / run / "separator.safetensors"
        system = Separator.from_checkpoint(file, detector) if run[-1].isdigit() else None
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for k in range(0, len(mixed), 20):
            heard, wanted = mixed[k : k + 20], speech[k : k + 20]
            if system is not None:
                mel = detector.feature_config.mel(heard)
                heard = system.separate(mel, waveform=heard).features[:, 0]
            elif run == "true speech":
                heard = wanted
            parts.append((detector(heard).frame[..., 0], other(heard), si_sdr(heard, wanted)))
        for kind, values in zip(("", "@8k", "@sdr"), zip(*parts, strict=True), strict=True):
            found[run + kind] = torch.cat(values).numpy()
    return labels, found


def counts(probabilities: np.ndarray, labels: np.ndarray, threshold: float) -> np.ndarray:
    """Right, reported and labelled frames of each clip, `[clips, 3]`."""
    active = probabilities >= threshold
    return np.stack([(active * labels).sum(1), active.sum(1), labels.sum(1)], 1)


def f1(counted: np.ndarray) -> np.ndarray:
    right, reported, labelled = np.moveaxis(counted.sum(-2), -1, 0)
    return 200 * right / (reported + labelled)


def main(out: Path, runs: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dev_labels, dev = hear(out / "mixtures/dev", runs)
    labels, found = hear(out / "mixtures/test", runs)
    drawn = np.random.default_rng(0).integers(len(labels), size=(2000, len(labels)))
    for kind in ("", "@8k"):
        for chosen in (False, True):
            print(
                "network of 8 kHz" if kind else "network of 16 kHz", "threshold of dev" if chosen else "threshold 0.5"
            )
            counted = {}
            for system, names in SYSTEMS.items():
                each = []
                for name in names:
                    scores = [f1(counts(dev[name + kind], dev_labels, t)) for t in THRESHOLDS]
                    threshold = THRESHOLDS[int(np.argmax(scores))] if chosen else 0.5
                    each.append(counts(found[name + kind], labels, threshold))
                counted[system] = np.stack(each)
                print(f"  {system}: {np.round(f1(counted[system]), 1)}")
            for after, before in (("squared", "alone"), ("task", "alone"), ("task", "squared")):
                change = f1(counted[after]).mean() - f1(counted[before]).mean()
                drawings = [np.mean([f1(run[drawn]) for run in counted[name]], 0) for name in (after, before)]
                low, high = np.percentile(drawings[0] - drawings[1], [2.5, 97.5])
                print(f"  {after} less {before}: {change:+.1f} [{low:+.1f}, {high:+.1f}]")
    for system, names in SYSTEMS.items():
        print(f"SI-SDR of {system}: {[round(float(found[name + '@sdr'].mean()), 1) for name in names]} dB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
