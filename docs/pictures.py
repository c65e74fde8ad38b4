"""Draws the pictures of the README: `python docs/pictures.py`."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch

from task_aware.data.labels import Event
from task_aware.data.mixing_config import MixingConfig
from task_aware.data.soundscapes import Soundscape, soundscapes
from task_aware.models.decoding import decode
from task_aware.models.detector import Detector, median_frames_of
from task_aware.models.opening import BUILTIN_SEPARATOR
from task_aware.models.system import Separator
from task_aware.plots.canvas import COLORS, DPI, GREY, INK, WIDTH, draw_mel, save, style
from task_aware.synthesis import builtin_corpus, open_corpus

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"

#: The mixture that is drawn, of sounds that the package's models have not heard, chosen because it shows the idea.
CORPUS, SEED, INDEX, SECONDS = 9, 3, 0, 10.0

#: The times that are drawn: file, heading of the measurement, and the best of the other libraries there.
SPEED = [
    ("PIT loss", "2026-11-22_pit_loss_cpu.txt", "pit_loss mse [12,5,128,628], forward + backward, cpu"),
    ("mel masking", "2026-11-23_mel_cpu.txt", "mel_mask [12,5,128,628], forward + backward, cpu"),
    ("mel front end", "2026-11-23_mel_cpu.txt", "mel_spectrogram [12,160000], forward, cpu"),
    ("reverberant mixing", "2026-11-23_reverb_mix_cpu.txt", "reverb_mix [4,5,160000] * 16000, forward, cpu"),
    (
        "training step",
        "2026-11-23_training_step_cpu.txt",
        "training step all objectives, 2+1+1 clips of 5 s, whole, cpu",
    ),
]


def level(mel: torch.Tensor) -> torch.Tensor:
    """Amplitudes in dB."""
    return 20 * torch.log10(mel.clamp_min(1e-8))


def found(detector: Detector, frame: torch.Tensor) -> list[Event]:
    """The events in frame probabilities `[T', C]`."""
    median_frames = median_frames_of(detector)
    return decode(frame, detector.labels, detector.frame_seconds, median_frames=median_frames, duration=SECONDS)


def draw_events(axes: Axes, labels: list[str], true: list[Event], found: list[Event], classes: tuple[str, ...]) -> None:
    """A row for each class: true events as wide bars, detected ones as narrow bars upon them."""
    for row, label in enumerate(labels):
        for events, height, color in (
            (true, 0.62, "#dddddd"),
            (found, 0.26, COLORS[classes.index(label) % len(COLORS)]),
        ):
            spans = [(event.onset, event.offset - event.onset) for event in events if event.label == label]
            axes.broken_barh(spans, (row - height / 2, height), color=color)
    axes.set_yticks(range(len(labels)), [label.replace("_", " ") for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(0, SECONDS)
    style(axes)


def draw_idea(path: Path, soundscape: Soundscape, separator: Separator) -> None:
    """What the method is about: the same detector on the mixture and on its separated sources."""
    detector, front_end = separator.detector, separator.detector.feature_config
    mel = front_end.mel(torch.from_numpy(soundscape.mixture).float())[None]
    analysis = separator.analyse(mel)
    names = sorted({event.label for event in soundscape.events})
    true, alone = list(soundscape.events), found(detector, analysis.alone.frame[0])
    mixture = level(mel[0])
    labels = sorted({event.label for event in [*true, *alone]})
    figure = Figure(figsize=(WIDTH, 4.9), dpi=DPI, facecolor="white")
    rows = len(names)
    grid = figure.add_gridspec(
        2 * rows, 3, width_ratios=(1, 0.13, 1), height_ratios=(2.2, 1) * rows, left=0.12, right=0.985, top=0.86,
        bottom=0.09, hspace=0.22, wspace=0.25,
    )  # fmt: skip
    left = figure.add_subplot(grid[: 2 * rows - 2, 0])
    draw_mel(left, (mixture - mixture.max()).numpy(), SECONDS, front_end.f_max)
    left.set_title("a mixture", fontsize=11, loc="left", color=INK)
    left.set_xticks([])
    below = figure.add_subplot(grid[2 * rows - 2 :, 0])
    draw_events(below, labels, true, alone, detector.labels)
    below.set_xlabel("s", fontsize=9)
    first = None
    sources = analysis.all_sources(analysis.separation.mel, len(detector.labels))[0]
    frames = analysis.all_sources(analysis.sources.frame, len(detector.labels))[0]
    for row, name in enumerate(names):
        index = detector.labels.index(name)
        spectrogram = figure.add_subplot(grid[2 * row, 2])
        first = first or spectrogram
        draw_mel(spectrogram, (level(sources[index]) - mixture.max()).numpy(), SECONDS, front_end.f_max)
        spectrogram.set_xticks([])
        spectrogram.set_yticks([])
        spectrogram.set_ylabel("")
        bars = figure.add_subplot(grid[2 * row + 1, 2])
        own = found(detector, frames[index])  # of which each class is read from its own source
        draw_events(bars, [name], true, own, detector.labels)
        if row < rows - 1:
            bars.set_xticks([])
        else:
            bars.set_xlabel("s", fontsize=9)
    assert first is not None
    first.set_title("its separated sources", fontsize=11, loc="left", color=INK)
    arrow = {"arrowstyle": "-|>", "linewidth": 1.4, "mutation_scale": 13, "color": INK}
    figure.add_artist(ConnectionPatch((0.475, 0.62), (0.555, 0.62), "figure fraction", **arrow))
    figure.text(0.515, 0.645, "mask network\n(trained)", ha="center", va="bottom", fontsize=9, color=INK)
    arrow |= {"linestyle": (0, (4, 3)), "color": COLORS[2]}
    figure.add_artist(ConnectionPatch((0.555, 0.45), (0.475, 0.45), "figure fraction", **arrow))
    text = "gradients\nthrough the\ndetector (frozen)"
    figure.text(0.515, 0.425, text, ha="center", va="top", fontsize=9, color=COLORS[2])
    note = "grey: true events   ·   coloured: what one and the same detector finds"
    figure.text(0.985, 0.965, note, ha="right", va="top", fontsize=9, color=GREY)
    save(figure, path)


def times(file: str, heading: str) -> dict[str, float]:
    """Milliseconds of each implementation, the median over the runs in a file of results."""
    found: dict[str, list[float]] = {}
    for block in (RESULTS / file).read_text(encoding="utf-8").split(f"{heading}\n")[1:]:
        for line in block.splitlines():
            row = re.match(r"  (\S.*?)\s{2,}([\d.]+) ", line)
            if row is None:
                break
            found.setdefault(row[1], []).append(float(row[2]))
    return {name: median(values) for name, values in found.items()}


def draw_speed(path: Path) -> None:
    """How many times as fast as the PyTorch reference the native operators and the best other way are."""
    figure = Figure(figsize=(WIDTH, 3.0), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    style(axes)
    for row, (_, file, heading) in enumerate(SPEED):
        measured = times(file, heading)
        others = {name: value for name, value in measured.items() if not name.startswith(("native", "reference"))}
        bars = [("native", measured["native"], COLORS[0])]
        if others:
            best = min(others, key=others.__getitem__)
            bars.append((best, others[best], COLORS[1]))
        for offset, (name, value, color) in zip((-0.19, 0.19), bars, strict=False):
            ratio = measured["reference"] / value
            axes.barh(row + offset, ratio, height=0.34, color=color)
            text = f" {ratio:.1f}x   {value:.3g} ms{'' if name == 'native' else f', {name}'}"
            axes.text(ratio, row + offset, text, va="center", fontsize=8.5, color=INK)
    axes.axvline(1, color=GREY, linewidth=0.9)
    axes.set_yticks(range(len(SPEED)), [title for title, *_ in SPEED])
    axes.invert_yaxis()
    axes.set_xlim(0, 48)
    axes.set_xlabel("times as fast as the PyTorch reference; blue: native, grey: the fastest other", fontsize=9)
    save(figure, path)


if __name__ == "__main__":
    separator = Separator.from_checkpoint(BUILTIN_SEPARATOR)
    corpus = open_corpus(builtin_corpus(seed=CORPUS), None, sample_rate=separator.detector.feature_config.sample_rate)
    mixing = MixingConfig(n_events=(3, 3), foreground_db=(-6.0, 0.0), background_db=(-25.0, -15.0), reference_db=-32.0)
    mixer = corpus.mixer(mixing, n_sources=3, seconds=SECONDS, seed=SEED)
    *_, chosen = soundscapes(mixer, INDEX + 1, corpus.encoder.labels)
    draw_idea(DOCS / "idea.png", chosen, separator)
    draw_speed(DOCS / "speed.png")
