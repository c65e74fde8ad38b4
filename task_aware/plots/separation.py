"""The paper's Figure 3: plots the mixture and its estimated sources, with the detections in each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from task_aware.data.labels import Event
from task_aware.models.analysis import Analysis
from task_aware.models.system import ClassSeparator, Separator
from task_aware.plots.canvas import COLORS, DPI, GREY, INK, WIDTH, draw_mel, save, style

Array = np.ndarray | torch.Tensor

DASHES = ("-", "--", ":", "-.")
"""If there are more labels than colours, the colours repeat with the next dash pattern."""

PALE = 0.35

#: Of sources of classes, so many are drawn, and those whose class reaches this probability in them.
MOST_SOURCES, LIKELY = 5, 0.25


def plot_separation(
    path: str | os.PathLike[str] | None,
    mixture_mel: Array,
    separated_mel: Array,
    mixture_frames: Array,
    separated_frames: Array,
    labels: Sequence[str],
    *,
    frame_seconds: float,
    output_frame_seconds: float,
    f_max: float,
    names: Sequence[str] | None = None,
    reference: Sequence[Event] | None = None,
    estimated: Sequence[Event] | None = None,
    threshold: float = 0.5,
    title: str = "",
) -> Figure:
    """Plots the paper's Figure 3: the mixture, then each estimated source, with the detections in it.

    Below each spectrogram (dB below the mixture's maximum, on a common scale) are the detector's frame probabilities of
    the classes that it detects there, and below these the true events (wide, pale) and the merged detections (narrow,
    dark) of the same classes.

    Args:
        path: the PNG to write, 1404 pixels wide, completely or not at all; None only returns the figure.
        mixture_mel: [F, T] linear amplitude.
        separated_mel: [S, F, T] linear amplitude.
        mixture_frames: [T', C] probabilities.
        separated_frames: [S, T', C] probabilities.
        labels: the C classes.
        frame_seconds: length of one of the T frames.
        output_frame_seconds: length of one of the T' frames.
        f_max: upper edge of the mel bands in Hz (the lower one is 0; Slaney's scale).
        names: what the sources are called; default: by their numbers.
        reference, estimated: true and detected events in seconds; None if unknown.
        threshold: the threshold of the detection, drawn as a line.
        title: title of the plot.

    Raises:
        ValueError: the shapes do not match.
    """
    mels = _stack(mixture_mel, separated_mel, "mel")
    frames = _stack(mixture_frames, separated_frames, "frames")
    if len(mels) != len(frames) or frames.shape[2] != len(labels):
        raise ValueError(
            f"separated_mel is {list(mels[1:].shape)} and separated_frames is {list(frames[1:].shape)}; expected "
            f"[S, F, T] and [S, T', {len(labels)}] of the same clip, with equal S."
        )
    shown = [_classes(row, labels, threshold / 2) for row in frames]
    everywhere = {label for row in shown for label in row}
    everywhere |= {event.label for event in (*(reference or ()), *(estimated or ()))}
    shown[0] = [label for label in labels if label in everywhere]
    level = 20 * np.log10(np.maximum(mels, 1e-8))
    level -= max(level[0].max(), -100.0)
    energy = 10 * np.log10(np.maximum((mels**2).sum(axis=(1, 2)), 1e-16))

    left = max(1.0, 0.4 + 0.073 * max((len(label) for label in everywhere), default=0))
    page = _Page(
        [(1.45 if len(mels) <= 3 else 1.1, len(row) or None) for row in shown],
        left=left,
        top=0.64 if title else 0.36,
        seconds=mels.shape[2] * frame_seconds,
    )
    for index, row in enumerate(shown):
        spectrogram, probabilities, lanes = page.rows[index]
        image = draw_mel(spectrogram, level[index], page.seconds, f_max)
        name = "mixture" if row or index else "mixture: nothing detected"
        if index > 0:
            heard = _classes(frames[index], labels, threshold)
            title_ = f"source {index}" if names is None else f"source of {_name(names[index - 1])}"
            name = f"{title_}: {', '.join(map(_name, heard)) or 'nothing detected'}"
            name += f" ({_relative(energy[index] - energy[0])})"
        spectrogram.text(
            0.006, 0.94, name, transform=spectrogram.transAxes, va="top", fontsize=9, color="white",
            bbox={"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 2.5},
        )  # fmt: skip
        if probabilities is not None and lanes is not None:
            _draw_probabilities(probabilities, frames[index], row, labels, output_frame_seconds, threshold)
            _draw_events(lanes, row, labels, reference, estimated)
    page.finish(image, title, reference is not None, estimated is not None)
    if path is not None:
        save(page.figure, path)
    return page.figure


class _Page:
    """The axes of `plot_separation`: one spectrogram per row, with probabilities and lanes of events below it."""

    def __init__(self, rows: Sequence[tuple[float, int | None]], *, left: float, top: float, seconds: float) -> None:
        """rows: height of each spectrogram (inches) and number of lanes (None for the spectrogram alone)."""
        right, bottom, low, gap, between = 0.85, 0.5, 0.68, 0.06, 0.17
        heights = [[tall] if n_lanes is None else [tall, low, 0.15 * n_lanes + 0.04] for tall, n_lanes in rows]
        self.height = top + bottom + between * (len(rows) - 1)
        self.height += sum(sum(parts) + gap * (len(parts) - 1) for parts in heights)
        self.left, self.top, self.right, self.seconds = left, top, right, seconds
        self.figure = Figure(figsize=(WIDTH, self.height), dpi=DPI, facecolor="white")
        self.rows: list[tuple[Axes, Axes | None, Axes | None]] = []
        y = self.height - top + between
        for parts in heights:
            y -= between - gap
            axes = []
            for part in parts:
                y -= part + gap
                axes.append(self._axes(left, y, WIDTH - left - right, part))
                axes[-1].set_xlim(0, seconds)
                axes[-1].tick_params(labelbottom=False)
            self.rows.append((axes[0], None, None) if len(axes) == 1 else (axes[0], axes[1], axes[2]))

    def _axes(self, x: float, y: float, width: float, height: float) -> Axes:
        axes = self.figure.add_axes((x / WIDTH, y / self.height, width / WIDTH, height / self.height))
        style(axes)
        return axes

    def finish(self, image: Any, title: str, with_reference: bool, with_estimated: bool) -> None:
        """Adds the time axis, the colour scale, the title and the legend."""
        last = [axes for axes in self.rows[-1] if axes is not None][-1]
        last.tick_params(labelbottom=True)
        last.set_xlabel("time (s)", fontsize=9, color=INK)
        tall = self.rows[0][0].get_position().height * self.height
        scale = self._axes(WIDTH - self.right + 0.1, self.height - self.top - tall, 0.12, tall)
        bar = self.figure.colorbar(image, cax=scale, ticks=[0, -20, -40, -60])
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.set_label("dB", fontsize=8, color=INK)
        handles: list[Any] = [
            Line2D([], [], color=INK, linewidth=1.5, label="frame probability"),
            Line2D([], [], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="threshold"),
        ]
        if with_reference:
            handles.append(Patch(facecolor=INK, alpha=PALE, label="true event"))
        if with_estimated:
            handles.append(Line2D([], [], color=INK, linewidth=3.5, solid_capstyle="butt", label="detected event"))
        if all(probabilities is None for _, probabilities, _ in self.rows):
            handles = []
        self.figure.legend(
            handles=handles, loc="lower left", ncols=4, frameon=False, fontsize=8.5, labelcolor=INK,
            bbox_to_anchor=(self.left / WIDTH, 1 - (self.top - 0.08) / self.height),
            borderaxespad=0, borderpad=0, handlelength=1.8, columnspacing=1.8,
        )  # fmt: skip
        self.figure.text(self.left / WIDTH, 1 - 0.13 / self.height, title, va="top", fontsize=12)


def _stack(mixture: Array, separated: Array, name: str) -> np.ndarray:
    """Stacks the mixture and the sources, [1 + S, ...] in float64."""
    first, others = _array(mixture), _array(separated)
    if first.ndim != 2 or others.ndim != 3 or first.shape != others.shape[1:] or not first.size:
        raise ValueError(
            f"mixture_{name} has the shape {list(first.shape)} and separated_{name} {list(others.shape)}; "
            "the second must be the first with S in front. Pass a single clip, without a batch axis."
        )
    return np.concatenate([first[None], others]).astype(np.float64)


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values)


def _classes(frames: np.ndarray, labels: Sequence[str], threshold: float) -> list[str]:
    """The classes that reach the threshold anywhere."""
    return [label for label, value in zip(labels, frames.max(axis=0), strict=True) if value >= threshold]


def _name(label: str) -> str:
    return label.replace("_", " ")


def _relative(decibels: float) -> str:
    if decibels < -80:
        return "silent"
    return f"{abs(decibels):.0f} dB {'below' if decibels < 0 else 'above'} the mixture"


def _color(label: str, labels: Sequence[str]) -> str:
    return COLORS[list(labels).index(label) % len(COLORS)]


def _dash(label: str, labels: Sequence[str]) -> str:
    return DASHES[list(labels).index(label) // len(COLORS) % len(DASHES)]


def _draw_probabilities(
    axes: Axes,
    frames: np.ndarray,
    shown: Sequence[str],
    labels: Sequence[str],
    seconds: float,
    threshold: float,
) -> None:
    edges = np.arange(len(frames) + 1) * seconds
    for label in shown:
        values = frames[:, list(labels).index(label)]
        color = _color(label, labels)
        axes.stairs(values, edges, fill=True, color=color, alpha=0.13)
        axes.stairs(values, edges, baseline=None, color=color, linestyle=_dash(label, labels), linewidth=1.5)
    axes.axhline(threshold, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_ylim(-0.02, 1.05)
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_ylabel("probability", fontsize=8, color=INK)


def _draw_events(
    axes: Axes,
    shown: Sequence[str],
    labels: Sequence[str],
    reference: Sequence[Event] | None,
    estimated: Sequence[Event] | None,
) -> None:
    for lane, label in enumerate(shown):
        color = _color(label, labels)
        for events, thickness, alpha in ((reference, 0.86, PALE), (estimated, 0.36, 1.0)):
            spans = [(event.onset, event.offset - event.onset) for event in events or () if event.label == label]
            axes.broken_barh(spans, (lane - thickness / 2, thickness), facecolors=color, alpha=alpha, linewidth=0)
        axes.plot(
            [-0.018, -0.004], [lane, lane], transform=axes.get_yaxis_transform(), clip_on=False,
            color=color, linestyle=_dash(label, labels), linewidth=2,
        )  # fmt: skip
    axes.set_ylim(len(shown) - 0.35, -0.65)
    axes.set_yticks(range(len(shown)), [_name(label) for label in shown])
    axes.tick_params(axis="y", length=0, pad=22)
    axes.spines["left"].set_visible(False)


@torch.no_grad()
def draw_separation(
    path: str | os.PathLike[str] | None,
    system: Separator,
    samples: np.ndarray,
    *,
    reference: Sequence[Event] | None,
    estimated: Sequence[Event] | None,
    title: str,
) -> Figure:
    """Separates samples `[N]` at the detector's sample rate and plots mixture and sources, with detections in each.

    The picture is written to `path` if that is not None.
    """
    waveform = torch.from_numpy(samples).to(system.detector.mean.device)[None]
    mel = system.detector.feature_config.mel(waveform, backend=system.backend)
    analysis = system.analyse(mel, waveform)
    return draw_analysis(path, system, mel, analysis, reference=reference, estimated=estimated, title=title)


def worth_showing(system: Separator, analysis: Analysis) -> Tensor:
    """Which of the K sources of one mixture to show, int64: all free ones; of classes, those most likely heard."""
    asked, frame = analysis.asked[0], analysis.sources.frame[0]
    if not isinstance(system, ClassSeparator):
        return torch.arange(len(asked), device=asked.device)
    own = frame[torch.arange(len(asked)), :, asked // system.slots].amax(1)
    likely = own.topk(min(MOST_SOURCES, len(own)))
    return likely.indices[likely.values >= LIKELY]


def draw_analysis(
    path: str | os.PathLike[str] | None,
    system: Separator,
    mel: Tensor,
    analysis: Analysis,
    *,
    reference: Sequence[Event] | None,
    estimated: Sequence[Event] | None,
    title: str,
) -> Figure:
    """Plots what `system` found in one mixture, linear mel `[1, F, T]`, as `draw_separation` does."""
    detector, shown = system.detector, worth_showing(system, analysis)
    front_end, asked = detector.feature_config, analysis.asked[0, shown].tolist()
    return plot_separation(
        path,
        mel[0].cpu().numpy(),
        analysis.separation.mel[0, shown].cpu().numpy(),
        analysis.alone.frame[0].cpu().numpy(),
        analysis.sources.frame[0, shown].cpu().numpy(),
        detector.labels,
        frame_seconds=front_end.frame_seconds,
        output_frame_seconds=detector.frame_seconds,
        f_max=front_end.f_max,
        names=[system.source_names[k] for k in asked] if isinstance(system, ClassSeparator) else None,
        reference=reference,
        estimated=estimated,
        title=title,
    )
