"""Pictures: files that open, of the right width, that hold what was given and leave nothing else behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from task_aware import plots
from task_aware.data.labels import DESED_CLASSES, Event
from task_aware.plots import plot_mixture, plot_separation, plot_training
from task_aware.plots.ablation import Bar, plot_ablation
from task_aware.plots.canvas import COLORS
from task_aware.plots.separation import draw_separation
from task_aware.plots.training import _noise, _panels, _running_mean

FRAME_SECONDS = 255 / 16000


def separation(n_sources: int, labels: tuple[str, ...] = DESED_CLASSES, n_frames: int = 157) -> dict:
    """Noise in which source k holds class k from second k to k + 2."""
    generator = np.random.default_rng(n_sources)
    mixture_mel = generator.uniform(0.01, 1.0, (32, 4 * n_frames)).astype(np.float32)
    separated_mel = np.full((n_sources, *mixture_mel.shape), 1e-4, dtype=np.float32)
    separated_frames = np.full((n_sources, n_frames, len(labels)), 0.02, dtype=np.float32)
    events = []
    for k in range(n_sources):
        separated_mel[k, :, 63 * k : 63 * (k + 2)] = mixture_mel[:, 63 * k : 63 * (k + 2)]
        separated_frames[k, 16 * k : 16 * (k + 2), k % len(labels)] = 0.9
        events.append(Event(float(k), float(k + 2), labels[k % len(labels)]))
    return {
        "mixture_mel": mixture_mel,
        "separated_mel": separated_mel,
        "mixture_frames": separated_frames.max(axis=0) if n_sources else np.zeros((n_frames, len(labels))),
        "separated_frames": separated_frames,
        "labels": labels,
        "frame_seconds": FRAME_SECONDS,
        "output_frame_seconds": 4 * FRAME_SECONDS,
        "f_max": 8000.0,
        "reference": events,
        "estimated": events,
    }


def read(path: Path) -> np.ndarray:
    """[height, width, 3] in 0..255."""
    return np.round(matplotlib.image.imread(path)[..., :3] * 255).astype(int)


def n_pixels(picture: np.ndarray, color: str) -> int:
    wanted = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)])
    return int((np.abs(picture - wanted).max(axis=-1) <= 1).sum())


class TestPlotSeparation:
    @pytest.mark.parametrize("n_sources", [1, 2, 5])
    def test_each_source_adds_a_row_and_its_class_its_colour(self, tmp_path: Path, n_sources: int):
        path = tmp_path / "deep" / "separation.png"
        plot_separation(path, **separation(n_sources), title="a clip")
        picture = read(path)
        assert picture.shape[1] == 1404
        assert picture.shape[0] > 200 * (n_sources + 1)
        for k in range(6):
            assert (n_pixels(picture, COLORS[k]) > 500) == (k < n_sources), k
        assert list(path.parent.iterdir()) == [path]

    def test_tensors_draw_what_arrays_draw(self, tmp_path: Path):
        arguments = separation(2)
        plot_separation(tmp_path / "array.png", **arguments)
        for name in ("mixture_mel", "separated_mel", "mixture_frames", "separated_frames"):
            arguments[name] = torch.from_numpy(arguments[name]).requires_grad_()
        plot_separation(tmp_path / "tensor.png", **arguments)
        assert (read(tmp_path / "array.png") == read(tmp_path / "tensor.png")).all()

    def test_true_and_detected_events_are_told_apart(self, tmp_path: Path):
        arguments = separation(1)
        pictures = []
        for name, changes in {
            "both": {},
            "true": {"estimated": []},
            "detected": {"reference": []},
            "neither": {"reference": None, "estimated": None},
        }.items():
            plot_separation(tmp_path / f"{name}.png", **{**arguments, **changes})
            pictures.append(n_pixels(read(tmp_path / f"{name}.png"), COLORS[0]))
        both, true, detected, neither = pictures
        assert true == neither < both <= detected  # true events are drawn in a paler shade of the colour

    def test_silence_without_events(self, tmp_path: Path):
        arguments = separation(3)
        for name in ("mixture_mel", "separated_mel", "mixture_frames", "separated_frames"):
            arguments[name] = np.zeros_like(arguments[name])
        arguments |= {"reference": [], "estimated": []}
        plot_separation(tmp_path / "silence.png", **arguments)
        picture = read(tmp_path / "silence.png")
        assert (picture[60:, 200:1200].max(axis=-1) < 10).mean() > 0.5  # black, not the brightest colour

    def test_more_labels_than_colours(self, tmp_path: Path):
        arguments = separation(1, tuple(f"class_{k}" for k in range(12)))
        arguments["separated_frames"][0, 80:, 11] = 0.9
        plot_separation(tmp_path / "many.png", **arguments)
        picture = read(tmp_path / "many.png")
        assert n_pixels(picture, COLORS[0]) > 100 and n_pixels(picture, COLORS[1]) > 100

    @pytest.mark.parametrize(
        ("name", "shape", "message"),
        [
            ("mixture_mel", (1, 32, 628), r"mixture_mel has the shape \[1, 32, 628\]"),
            ("separated_mel", (2, 32, 600), r"separated_mel \[2, 32, 600\]"),
            ("separated_frames", (3, 157, 10), r"separated_frames is \[3, 157, 10\]"),
            ("labels", None, r"\[S, T', 2\]"),
        ],
    )
    def test_shapes_that_do_not_fit(self, tmp_path: Path, name: str, shape: tuple | None, message: str):
        arguments = separation(2)
        arguments[name] = np.zeros(shape) if shape else ("Cat", "Dog")
        with pytest.raises(ValueError, match=message):
            plot_separation(tmp_path / "separation.png", **arguments)
        assert list(tmp_path.iterdir()) == []

    def test_a_failed_write_keeps_the_old_picture(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        path = tmp_path / "separation.png"
        path.write_bytes(b"old")

        def fail(figure: object, target: Path, **_: object) -> None:
            Path(target).write_bytes(b"half")
            raise OSError("no space left on device")

        monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
        with pytest.raises(OSError, match="no space"):
            plot_separation(path, **separation(1))
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]


def test_a_mixture_above_its_parts(tmp_path: Path):
    mels = np.random.default_rng(0).uniform(0.01, 1.0, (3, 32, 628))
    events = [Event(1.0, 2.0, "Dog"), Event(4.0, 9.0, "Dog")]
    pictures = []
    for name, shown in (("with", events), ("without", [])):
        path = tmp_path / name / "mixture.png"
        plot_mixture(path, mels, ["mixture", "Dog", "background"], shown, seconds=10.0, f_max=8000.0, title="a mixture")
        pictures.append(n_pixels(read(path), COLORS[0]))
        assert read(path).shape[1] == 1404 and list(path.parent.iterdir()) == [path]
    assert pictures[0] > 2 * 1000 and pictures[1] == 0  # six seconds above the mixture, and above the dog


class TestPlotTraining:
    def test_panels_share_what_differs_in_prefix_or_number(self):
        pairs = [(0, 1.0), (10, 0.5)]
        names = ("train/mse", "validation/mse", "separation/slot_1_energy", "separation/slot_2_energy")
        panels = _panels({name: pairs for name in (*names, "event_f1_macro", "stage_2", "train/never")} | {"x": []})
        assert {title: list(curves) for title, curves in panels.items()} == {
            "MSE": [("train", ""), ("validation", "")],
            "slot energy": [("separation", "1"), ("separation", "2")],
            "event F1 macro": [("", "")],
            "stage 2": [("", "")],
            "never": [("train", "")],
        }
        steps, values = panels["MSE"]["train", ""]
        assert steps.tolist() == [0, 10] and values.tolist() == [1.0, 0.5]

    def test_running_mean_skips_what_is_not_finite(self):
        values = np.array([1.0, 3.0, np.nan, 5.0, 5.0])
        assert _running_mean(values, 1) == pytest.approx([2.0, 2.0, np.nan, 5.0, 5.0], nan_ok=True)

    def test_noise_is_told_from_trend(self):
        steps = np.linspace(0, 1, 400)
        smooth = np.exp(-3 * steps)
        noisy = smooth + np.random.default_rng(0).normal(0, 0.05, 400)
        assert _noise(smooth) < 0.001
        assert _noise(noisy) == pytest.approx(0.05 / np.ptp(noisy), rel=0.2)
        assert _noise(np.array([2.0, 2.0, 2.0])) == 0.0

    def test_a_picture_of_a_run(self, tmp_path: Path):
        generator = np.random.default_rng(0)
        history = {"train/loss": [(step, float(generator.lognormal())) for step in range(200)]}
        history["train/loss"][50] = (50, float("nan"))
        history["train/rate"] = [(step, 10.0 ** (-step / 50)) for step in range(200)]
        history["validation/loss"] = [(0, 1.0), (199, 0.5)]
        plot_training(tmp_path / "two.png", history)
        two = read(tmp_path / "two.png")
        assert two.shape[1] == 1404
        assert n_pixels(two, COLORS[0]) > 500 and n_pixels(two, COLORS[4]) > 200
        plot_training(tmp_path / "five.png", history | {name: [(0, 1.0)] for name in ("a", "b", "c")})
        assert read(tmp_path / "five.png").shape[0] > 1.5 * two.shape[0]

    @pytest.mark.parametrize("history", [{}, {"loss": []}, {"loss": [(0, float("nan"))]}, {"loss": [(3, 0.0)]}])
    def test_little_to_show(self, tmp_path: Path, history: dict):
        plot_training(tmp_path / "training.png", history)
        assert read(tmp_path / "training.png").shape[1] == 1404


def test_pyplot_stays_out():
    code = "import sys, task_aware.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_bars(tmp_path):
    bars = [Bar("alone", [30.0], (25.0, 36.0)), Bar("separated", [33.0, 35.0], (29.0, 40.0))]
    assert bars[1].mean == 34.0
    plot_ablation(tmp_path / "two.png", bars, label="F1")
    plot_ablation(tmp_path / "four.png", bars * 2, label="F1")
    two, four = (matplotlib.image.imread(tmp_path / f"{name}.png").shape for name in ("two", "four"))
    assert two[1] == 1404 and four[0] > two[0]


def test_sources_of_classes_are_drawn_by_their_names(class_separator, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(plots.separation, "plot_separation", lambda *arrays, **options: drawn.update(options))
    samples = np.random.default_rng(0).normal(size=16000).astype(np.float32)
    monkeypatch.setattr(plots.separation, "LIKELY", 0.0)
    draw_separation(tmp_path / "x.png", class_separator, samples, reference=None, estimated=None, title="")
    assert len(drawn["names"]) == 5 and set(drawn["names"]) <= set(DESED_CLASSES)
    monkeypatch.undo()
    draw_separation(tmp_path / "x.png", class_separator, samples, reference=None, estimated=None, title="")
    assert matplotlib.image.imread(tmp_path / "x.png").shape[1] == 1404
