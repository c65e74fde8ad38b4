"""`score.py OUT RUNS`: the pitch of voices in mixtures at 0 dB, with RUNS/{squared,task}{0,1,2}.

OUT/dev and OUT/test are those of `make_data.py` of the speech study. The true pitch is torchcrepe's answer on the voice
alone, where its probability reaches a bound: the lowest from which 95 % of the answers of dev stay within 50 cents at
20 dB.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import librosa
import numpy as np
import torch
from torch import Tensor

from task_aware import ops
from task_aware.data.corpus import Corpus
from task_aware.data.mixing_config import MixingConfig
from task_aware.models.listener import WaveformDetector
from task_aware.models.listeners.crepe import make
from task_aware.models.system import Separator
from task_aware.training.losses import si_sdr

HOP = 640  # 40 ms
LOWEST, HIGHEST = 50.0, 550.0  # Hz
CENTS = 1997.3794 + 20 * torch.arange(360)  # of torchcrepe's bins, above 10 Hz
BOUNDS = np.arange(0.1, 0.91, 0.05)
SYSTEMS = {"alone": ["alone"]} | {name: [f"{name}{seed}" for seed in range(3)] for name in ("squared", "task")}


class Heard(NamedTuple):
    """Cents above 10 Hz and torchcrepe's probability, cents by YIN, all `[clips, T]`, and SI-SDR `[clips]`."""

    cents: np.ndarray
    probability: np.ndarray
    yin: np.ndarray
    sdr: np.ndarray


def mixtures(part: Path, count: int, *, snr: float = 0.0, seconds: float = 4.0) -> tuple[Tensor, Tensor]:
    """Mixtures of one utterance with noise, and the voice in its room alone, `[count, N]` each."""
    config = MixingConfig(
        n_events=(1, 1), foreground_db=(0, 0), background_db=(-snr, -snr), gain_db=(-6, 6), reference_db=-32.0
    )
    mixer = Corpus(part, labels=("Speech",)).mixer(config, n_sources=1, seconds=seconds, seed=5)
    mixed = ops.reverb_mix(*mixer.pack([mixer.plan(index) for index in range(count)]).unpack())
    return mixed.mixture, mixed.images[:, 0]


@torch.no_grad()
def hear(detector: WaveformDetector, waveforms: Tensor, voices: Tensor) -> Heard:
    """The pitch of waveforms `[clips, N]`: the mean of the bins around the most probable one of a voice."""
    probability = torch.cat([detector(part).activations[0] for part in waveforms.split(10)])
    hertz = 10 * 2 ** (CENTS / 1200)
    probability = probability * ((hertz >= LOWEST) & (hertz <= HIGHEST))
    highest, place = probability.max(-1, keepdim=True)
    around = (place + torch.arange(-4, 5)).clamp(0, 359)
    weights = probability.gather(-1, around)
    cents = (weights * CENTS[around]).sum(-1) / weights.sum(-1)
    yin = librosa.yin(waveforms.numpy(), fmin=LOWEST, fmax=HIGHEST, sr=16000, frame_length=1024, hop_length=HOP)
    return Heard(cents.numpy(), highest[..., 0].numpy(), 1200 * np.log2(yin / 10), si_sdr(waveforms, voices).numpy())


def near(cents: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.abs(cents - truth) <= 50


def share(counted: np.ndarray) -> np.ndarray:
    """Percent of counts `[..., clips, 2]`: right and all."""
    right, total = np.moveaxis(counted.sum(-2), -1, 0)
    return 100 * right / total


def counts(right: np.ndarray, of: np.ndarray) -> np.ndarray:
    return np.stack([(right & of).sum(1), of.sum(1)], 1)


@torch.no_grad()
def separated(file: Path, detector: WaveformDetector, mixed: Tensor) -> Tensor:
    """What a separator makes of mixtures, `[clips, N]`."""
    system = Separator.from_checkpoint(file, detector)
    mel = detector.feature_config.mel
    return torch.cat([system.separate(mel(part), waveform=part).features[:, 0] for part in mixed.split(10)])


def main(out: Path, runs: Path, n_clips: int = 120) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    detector = WaveformDetector(make(hop=HOP)).eval().requires_grad_(False)
    faint, voices = mixtures(out / "dev", n_clips // 3, snr=20.0)
    clean, noisy = hear(detector, voices, voices), hear(detector, faint, voices)
    steady = np.array([near(noisy.cents, clean.cents)[clean.probability >= bound].mean() for bound in BOUNDS])
    bound = float(BOUNDS[int(np.argmax(steady >= 0.95))])
    print(f"bound {bound:.2f}; the same at 20 dB, by bound: {np.round(100 * steady, 1)}", flush=True)

    mixed, voices = mixtures(out / "test", n_clips)
    truth = hear(detector, voices, voices)
    voiced = truth.probability >= bound
    print(f"voiced: {100 * voiced.mean():.1f} % of {voiced.size} frames")
    print(f"YIN hears in the voice alone {share(counts(near(truth.yin, truth.cents), voiced)):.1f}", flush=True)
    found: dict[str, list[np.ndarray]] = {}
    for system, names in SYSTEMS.items():
        for name in names:
            kept = runs / f"{name}.npz"  # so that further runs can be added
            if not kept.exists():
                file = runs / name / "separator.safetensors"
                heard = mixed if system == "alone" else separated(file, detector, mixed)
                np.savez(kept, **hear(detector, heard, voices)._asdict())
            answer = Heard(**np.load(kept))
            right, reported = near(answer.cents, truth.cents), answer.probability >= bound
            found.setdefault(system, []).append(
                np.stack(
                    [
                        counts(right, voiced),
                        counts(right & reported, voiced),
                        counts(reported, ~voiced),
                        counts(near(answer.yin, truth.cents), voiced),
                    ]
                )
            )
            print(f"{name}: {np.round(share(found[system][-1]), 1)} SI-SDR {answer.sdr.mean():.1f} dB", flush=True)
    drawn = np.random.default_rng(0).integers(n_clips, size=(2000, n_clips))
    for kind, row in (("torchcrepe", 0), ("found and reported", 1), ("reported where there is none", 2), ("YIN", 3)):
        for after, before in (("squared", "alone"), ("task", "alone"), ("task", "squared")):
            if after in found and before in found:
                scores = {x: np.mean([share(run[row]) for run in found[x]]) for x in (after, before)}
                draws = [np.mean([share(run[row][drawn]) for run in found[x]], 0) for x in (after, before)]
                low, high = np.percentile(draws[0] - draws[1], [2.5, 97.5])
                print(f"{kind}: {after} less {before}: {scores[after] - scores[before]:+.1f} [{low:+.1f}, {high:+.1f}]")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]), *map(int, sys.argv[3:]))
