"""What all pictures share: size, colours, the look of axes, and writing a whole file or none."""

from __future__ import annotations

import os
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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
"""After M. Petroff (arXiv 2107.02270): colours that stay apart in colour-blind eyes (his cyan, too pale for
lines, is navy here), in an order that gives the frequent DESED classes the clearest ones."""

INK, GREY = "#333333", "#777777"


def style(axes: Axes) -> None:
    """Quiet ticks, and only the left and lower spines."""
    axes.tick_params(labelsize=8, labelcolor=INK, color="#999999", length=2.5, width=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#999999")
        spine.set_linewidth(0.6)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes the figure as a PNG, as a whole or not at all; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    FigureCanvasAgg(figure)
    try:
        figure.savefig(temporary, format="png", dpi=DPI)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
