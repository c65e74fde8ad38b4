"""What all plots share: size, colours, the style of axes, and writing the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from task_aware.base.files import replacing

DPI = 120
WIDTH = 11.7
"""Inches; 1404 pixels."""

COLORS = (
    "#3f90da",
    "#94a4a2",
    "#e76300",
    "#ffa90e",
    "#bd1f01",
    "#a96b59",
    "#717581",
    "#142850",
    "#832db6",
    "#b9ac70",
)
"""After M. Petroff (arXiv 2107.02270): colours that colour-blind readers can distinguish (his cyan is too pale for
lines and replaced by navy), in an order that gives the most frequent DESED classes the clearest ones."""

INK, GREY = "#333333", "#777777"

RANGE_DB = 60.0
"""Dynamic range of spectrograms below the maximum."""


def style(axes: Axes) -> None:
    """Makes ticks unobtrusive and hides all but the left and lower spines."""
    axes.tick_params(labelsize=8, labelcolor=INK, color="#999999", length=2.5, width=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#999999")
        spine.set_linewidth(0.6)


def draw_mel(axes: Axes, level: np.ndarray, seconds: float, f_max: float) -> Any:
    """Draws a mel-spectrogram [F, T] with levels of at most 0 dB and bands labelled in kHz; returns the image."""
    n_bands = len(level)
    image = axes.imshow(
        level, origin="lower", aspect="auto", extent=(0, seconds, -0.5, n_bands - 0.5), cmap="magma",
        vmin=-RANGE_DB, vmax=0, interpolation="antialiased",
    )  # fmt: skip
    ticks = [hertz for hertz in (500, 1000, 2000, 4000, 8000, 16000) if hertz <= f_max]
    centres = _slaney(np.array(ticks, dtype=float)) / _slaney(np.array(f_max)) * (n_bands + 1) - 1
    axes.set_yticks(np.minimum(centres, n_bands - 0.5), [f"{hertz / 1000:g}" for hertz in ticks])
    axes.set_ylabel("kHz", fontsize=8.5, color=INK)
    return image


def _slaney(hertz: np.ndarray) -> np.ndarray:
    """Converts Hz to Slaney's mel: linear below 1 kHz, logarithmic above."""
    return np.where(hertz < 1000, hertz * 3 / 200, 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4))


def drawable(figure: Figure) -> FigureCanvasAgg:
    """Gives the figure a canvas. Names are drawn as they are: a `$` begins no formula."""
    canvas = FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        cast(Text, text).set_parse_math(False)
    return canvas


def pixels(figure: Figure) -> np.ndarray:
    """Draws the figure, uint8 `[height, width, 4]`."""
    canvas = drawable(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes the figure as a PNG, completely or not at all; missing folders are created."""
    drawable(figure)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)
