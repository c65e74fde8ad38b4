"""Plots the curves of a training run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from task_aware.plots.canvas import COLORS, DPI, INK, WIDTH, save, style

CURVE_COLORS = tuple(COLORS[index] for index in (0, 4, 8, 3, 7, 5, 6, 2, 9, 1))

Curve = tuple[np.ndarray, np.ndarray]
"""Steps and values."""


def plot_training(path: str | os.PathLike[str], history: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    """Plots the values logged in training over steps, in one panel per quantity.

    Noisy curves of more than 60 values are drawn pale behind their running mean. Positive values that span more than a
    factor of 30 get a logarithmic axis. Values that are not finite leave a gap.

    Args:
        path: the PNG to write, 1404 pixels wide; it is written completely or not at all.
        history: (step, value) pairs by name. Names that differ only in what precedes the last "/" (`train/loss`,
            `validation/loss`) or in a number after an underscore (`slot_1`, `slot_2`) share a panel.
    """
    panels = _panels(history)
    columns = min(3, max(len(panels), 1))
    rows = max(-(-len(panels) // columns), 1)
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(WIDTH, 0.35 + 2.35 * rows), dpi=DPI, facecolor="white", layout=layout)
    if not panels:
        figure.text(0.5, 0.5, "no values were logged", ha="center", va="center", color=INK)
    for position, (name, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, columns, position)
        style(axes)
        finite = np.concatenate([values[np.isfinite(values)] for _, values in curves.values()])
        if len(finite) and finite.min() > 0 and finite.max() > 30 * finite.min():
            axes.set_yscale("log")
        prefixes = {prefix for prefix, _ in curves}
        for index, ((prefix, number), (steps, values)) in enumerate(curves.items()):
            label = number if len(prefixes) == 1 else f"{prefix} {number}".strip()
            _draw_curve(axes, steps, values, CURVE_COLORS[index % len(CURVE_COLORS)], label)
        only = next(iter(prefixes)) if len(prefixes) == 1 else ""
        axes.set_title(f"{name} ({only})" if only else name, fontsize=10, loc="left")
        axes.set_xlabel("step", fontsize=9, color=INK)
        axes.grid(color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)
        if len(curves) > 1:
            axes.legend(fontsize=8, frameon=False, labelcolor=INK, ncols=1 if len(curves) < 4 else 2)
    save(figure, path)


def _panels(
    history: Mapping[str, Sequence[tuple[int, float]]],
) -> dict[str, dict[tuple[str, str], Curve]]:
    """Curves by panel, and by prefix and number within it; empty curves are left out."""
    series = {full_name: _numbered(full_name) for full_name, pairs in history.items() if pairs}
    stems = [stem for stem, _ in series.values()]
    panels: dict[str, dict[tuple[str, str], Curve]] = {}
    for full_name, (stem, number) in series.items():
        if stems.count(stem) == 1:
            stem, number = full_name, ""
        prefix, _, name = stem.rpartition("/")
        steps, values = np.array(sorted(history[full_name]), dtype=float).T
        panels.setdefault(_caption(name), {})[prefix, number] = steps, values
    return panels


def _numbered(name: str) -> tuple[str, str]:
    """ "slots/slot_2_energy" -> ("slots/slot_energy", "2"); a name without a number -> (name, "")."""
    match = re.search(r"_(\d+)(?=_|$)", name)
    return (name[: match.start()] + name[match.end() :], match[1]) if match else (name, "")


def _caption(name: str) -> str:
    return " ".join(word.upper() if word in ("f1", "mse", "psds") else word for word in name.split("_"))


def _draw_curve(axes: Axes, steps: np.ndarray, values: np.ndarray, color: str, label: str) -> None:
    values = np.where(np.isfinite(values), values, np.nan)
    if len(values) <= 60:
        axes.plot(steps, values, color=color, linewidth=1.7, marker="o", markersize=2.8, label=label)
    elif _noise(values) < 0.005:
        axes.plot(steps, values, color=color, linewidth=1.7, label=label)
    else:
        axes.plot(steps, values, color=color, linewidth=0.7, alpha=0.3)
        axes.plot(steps, _running_mean(values, len(values) // 30), color=color, linewidth=1.8, label=label)


def _noise(values: np.ndarray) -> float:
    """Standard deviation of the noise, estimated from second differences, relative to the range of the values."""
    known = values[np.isfinite(values)]
    if len(known) < 3 or np.ptp(known) == 0:
        return 0.0
    return float(np.median(np.abs(np.diff(known, 2))) / 1.65 / np.ptp(known))


def _running_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """Mean of the finite values up to `reach` places away; NaN stays NaN."""
    known = np.isfinite(values)
    kernel = np.ones(2 * reach + 1)
    total = np.convolve(np.where(known, values, 0.0), kernel)[reach : reach + len(values)]
    count = np.convolve(known.astype(float), kernel)[reach : reach + len(values)]
    return np.where(known, total / np.maximum(count, 1), np.nan)
