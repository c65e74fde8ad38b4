"""Plots a mixture and its parts."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from task_aware.data.labels import Event, label_of
from task_aware.data.soundscapes import SAMPLE_RATE, Soundscape
from task_aware.models.features import FeatureConfig
from task_aware.plots.canvas import COLORS, DPI, INK, WIDTH, draw_mel, save, style


def plot_mixture(
    path: str | os.PathLike[str],
    mels: np.ndarray,
    names: Sequence[str],
    events: Sequence[Event],
    *,
    seconds: float,
    f_max: float,
    title: str = "",
) -> None:
    """Plots a mixture and its parts, one spectrogram per row (dB below the mixture's maximum), with their events.

    Args:
        path: the PNG to write, 1404 pixels wide; it is written completely or not at all.
        mels: [1 + S, F, T] linear amplitude, the mixture first.
        names: names of the rows, which include the labels of the events.
        events: the events of the mixture.
        seconds: length of the clip.
        f_max: upper edge of the mel bands in Hz (the lower one is 0; Slaney's scale).
        title: title of the plot.
    """
    level = 20 * np.log10(np.maximum(mels, 1e-8))
    level -= max(level[0].max(), -100.0)
    layout = ConstrainedLayoutEngine(h_pad=0.03)
    figure = Figure(figsize=(WIDTH, 0.6 + 1.3 * len(mels)), dpi=DPI, facecolor="white", layout=layout)
    rows = figure.subplots(len(mels), 1, sharex=True, squeeze=False)[:, 0]
    for row, (axes, name) in enumerate(zip(rows, names, strict=True)):
        style(axes)
        image = draw_mel(axes, level[row], seconds, f_max)
        axes.set_title(name.replace("_", " "), fontsize=9, color=INK, loc="left", pad=9)
        # above the spectrogram, one colour per part
        for event in events:
            if event.label == name or row == 0:
                color = COLORS[(list(names).index(event.label) - 1) % len(COLORS)]
                axes.broken_barh(
                    [(event.onset, event.offset - event.onset)], (1.01, 0.07), facecolors=color, linewidth=0,
                    transform=axes.get_xaxis_transform(), clip_on=False,
                )  # fmt: skip
    rows[-1].set_xlabel("time (s)", fontsize=9, color=INK)
    bar = figure.colorbar(image, ax=list(rows), aspect=40, pad=0.01, ticks=[0, -20, -40, -60])
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_label("dB", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    save(figure, path)


def draw_soundscape(path: str | os.PathLike[str], soundscape: Soundscape, *, title: str) -> None:
    """Plots a soundscape and its parts with the default front end."""
    front_end = FeatureConfig(sample_rate=SAMPLE_RATE)
    waveforms = np.stack([soundscape.mixture, *soundscape.parts.values()])
    plot_mixture(
        path,
        front_end.mel(torch.from_numpy(waveforms)).numpy(),
        ["mixture", *map(label_of, soundscape.parts)],
        soundscape.events,
        seconds=waveforms.shape[1] / SAMPLE_RATE,
        f_max=front_end.f_max,
        title=title,
    )
