"""Plots what an imported collection holds: events, their lengths and their levels, by class."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from task_aware.plots.canvas import COLORS, DPI, INK, WIDTH, save, style

#: Classes that are drawn at most.
MOST = 60


def plot_collection(
    path: str | os.PathLike[str],
    labels: Sequence[str],
    lengths: Mapping[tuple[str, bool], Sequence[float]],
    levels: Mapping[tuple[str, bool], Sequence[float]],
    *,
    title: str = "",
) -> None:
    """Plots each class as a row: events to train on and held out, and the spread of lengths and levels.

    Of more than 60 classes, those with the fewest events are drawn.

    Args:
        path: the PNG to write, 1404 pixels wide; it is written completely or not at all.
        labels: the classes.
        lengths, levels: seconds and dB of each event by (class, held out).
        title: title of the plot.
    """
    counts = {label: [len(lengths.get((label, side), ())) for side in (False, True)] for label in labels}
    shown = sorted(labels, key=lambda label: (sum(counts[label]), label))[:MOST]
    if len(shown) < len(labels):
        title = f"{title} (the {MOST} classes of {len(labels):,} with the fewest events)"
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06)
    figure = Figure(figsize=(WIDTH, 1.6 + 0.24 * len(shown)), dpi=DPI, facecolor="white", layout=layout)
    of_counts, of_lengths, of_levels = figure.subplots(1, 3, sharey=True)
    places = np.arange(len(shown))
    trained, held = (np.array([counts[label][side] for label in shown]) for side in (0, 1))
    of_counts.barh(places, trained, height=0.7, color=COLORS[0], label="to train on")
    of_counts.barh(places, held, left=trained, height=0.7, color=COLORS[3], label="held out")
    of_counts.legend(fontsize=8, frameon=False)
    of_counts.set_yticks(places, shown)
    for axes, values, name in ((of_lengths, lengths, "length (s)"), (of_levels, levels, "level (dB)")):
        for place, label in enumerate(shown):
            _spread(axes, place, [*values.get((label, False), ()), *values.get((label, True), ())])
        axes.set_xlabel(name, fontsize=9, color=INK)
    of_lengths.set_xscale("log")
    of_counts.set_xlabel("events", fontsize=9, color=INK)
    for axes in (of_counts, of_lengths, of_levels):
        style(axes)
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    save(figure, path)


def _spread(axes: Axes, place: int, values: Sequence[float]) -> None:
    """The middle four fifths as a line, the median as a dot."""
    if not values:
        return
    low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
    axes.plot([low, high], [place, place], color=COLORS[0], linewidth=3, alpha=0.6, solid_capstyle="butt")
    axes.plot([middle], [place], "o", color=INK, markersize=3.5)
