"""Draws a question's answers: a row of panels for each of its parts, time and memory against what grows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter, NullLocator

from task_aware.plots.canvas import COLORS, DPI, GREY, INK, WIDTH, save, style

from .growing import NATIVE, Found, Part, Point

MARKERS = "osD^vPXp"


def axes_of(axes: Axes, part: Part, points: Sequence[Point], what: str) -> None:
    """Labels of one panel."""
    style(axes)
    axes.set_xscale("log")
    axes.set_yscale("log")
    sizes = sorted({point.size for point in points})
    ticks = dict(zip(part.sizes, part.ticks, strict=False))
    axes.set_xticks(sizes, [ticks.get(size, f"{size:g}") for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="major", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    axes.set_xlabel(part.axis, fontsize=9.5, color=INK)
    axes.set_ylabel(what, fontsize=9.5, color=INK)


def draw(path: Path, answers: Sequence[tuple[Part, Found]]) -> None:
    """Writes the picture of a question."""
    figure = Figure(figsize=(WIDTH, 0.3 + 3.4 * len(answers)), dpi=DPI, facecolor="white", layout="constrained")
    grid = figure.subplots(len(answers), 3, squeeze=False, width_ratios=(1, 1, 0.62))
    for (part, found), (time, memory, legend) in zip(answers, grid, strict=True):
        axes_of(time, part, found.points, "time by the clock" if part.by_the_clock else "processor time")
        axes_of(memory, part, found.points, "peak memory, MiB")
        time.yaxis.set_major_formatter(EngFormatter("s", sep=" "))
        memory.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        time.set_title(part.title, fontsize=10.5, loc="left", color=INK)
        names = sorted({point.implementation: None for point in found.points}, key=lambda name: name != NATIVE)
        for k, name in enumerate(names):
            own = [point for point in found.points if point.implementation == name]
            stopped = own[-1].size < found.points[-1].size
            line = {
                "color": COLORS[k % len(COLORS)],
                "marker": MARKERS[k % len(MARKERS)],
                "markersize": 4.5,
                "linewidth": 2.2 if k == 0 else 1.3,
                "zorder": 3 if k == 0 else 2,
            }
            sizes = [point.size for point in own]
            time.plot(sizes, [point.milliseconds / 1000 for point in own], **line)
            known = [(point.size, max(point.peak_mib, 0.1)) for point in own if point.peak_mib is not None]
            if known:
                memory.plot(*zip(*known, strict=True), **line)
            legend.plot([], [], label=f"{name}{' (stopped)' if stopped else ''}", **line)
        first = [point for point in found.points if point.implementation == names[0]]
        if len(first) > 1 and not part.by_the_clock:
            last = first[-1]
            ends, limits = [first[0].size, last.size], time.get_ylim()
            time.plot(ends, [last.milliseconds / 1000 * x / last.size for x in ends], ":", color=GREY, linewidth=1)
            time.set_ylim(limits)
            legend.plot([], [], ":", color=GREY, linewidth=1, label="linear")
        for axes in (time, memory):
            low, high = axes.get_ylim()
            if high < 10 * low:  # room for labels
                axes.set_ylim(low / 2, high * 2)
        legend.axis("off")
        legend.legend(loc="center left", fontsize=9, frameon=False, labelcolor=INK, borderaxespad=0)
    save(figure, path)
