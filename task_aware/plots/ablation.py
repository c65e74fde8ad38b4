"""Plots the scores of several systems as bars."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from task_aware.plots.canvas import COLORS, DPI, GREY, INK, WIDTH, save, style


@dataclass(frozen=True)
class Bar:
    """A system's bar: the scores of its runs and the confidence interval of their mean, in percent."""

    title: str
    scores: Sequence[float]
    interval: tuple[float, float]

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)


def plot_ablation(path: str | os.PathLike[str], bars: Sequence[Bar], *, label: str, title: str = "") -> None:
    """Plots each system as a bar with its confidence interval and a dot per run; a line marks the first one's score.

    Writes a PNG, 1404 pixels wide, completely or not at all.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(WIDTH, 1.1 + 0.45 * len(bars)), dpi=DPI, facecolor="white", layout=layout)
    axes = figure.add_subplot()
    style(axes)
    for place, bar in enumerate(bars):
        low, high = bar.interval
        axes.barh(place, bar.mean, height=0.62, color=COLORS[0 if place else 1], alpha=0.8)
        axes.plot([low, high], [place, place], color=INK, linewidth=1.6, solid_capstyle="butt")
        axes.plot(bar.scores, [place] * len(bar.scores), "o", color="white", markeredgecolor=INK, markersize=4.5)
        axes.annotate(
            f"{bar.mean:.1f}", (max(high, *bar.scores), place), xytext=(6, 0), textcoords="offset points",
            va="center", fontsize=9, color=INK,
        )  # fmt: skip
    axes.axvline(bars[0].mean, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(bars)), [bar.title for bar in bars])
    axes.tick_params(axis="y", length=0, labelsize=9)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(label, fontsize=9, color=INK)
    axes.set_title(title, fontsize=12, loc="left")
    save(figure, path)
