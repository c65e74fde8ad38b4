"""The systems of the paper's Tables 1 and 2, with the commands and options that train them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from task_aware.scoring.systems import DETECTOR_ONLY, SEPARATED, SOURCE_ONLY
from task_aware.training.config import LossConfig

Command = Literal["evaluate", "train_sep", "train"]


@dataclass(frozen=True)
class Run:
    """A training, or the scoring of the detector alone.

    Attributes:
        command: the module of `task_aware` to run.
        checkpoint: the file that it writes; empty for the detector, which is given.
        options: options of the command.
        losses: for `train`, the terms of `LossConfig` that are kept; if empty, the recipe's own.
    """

    command: Command
    checkpoint: str = ""
    options: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        title: the name in the paper.
        run: the run that it needs, a key of `RUNS`; two rows may show two systems of one run.
        system: the system of the run that it shows, a key of its `metrics.json`.
        published: event macro F1 on DESED's development set in the paper, in percent.
    """

    title: str
    run: str
    system: str = SEPARATED
    published: float | None = None


#: The terms of the losses.
TERMS = ("mse", "deep_feature", "weak", "teacher", "frame", "own")

#: The paper's sources, in any order.
FREE = ("--separator.sources=free",)

#: A source for each class; two losses train them unless the row says otherwise.
OF_CLASSES = ("--separator.sources=classes",)


def loss_options(kept: tuple[str, ...], config: LossConfig) -> list[str]:
    """Options of `train` that keep these terms only, each with the recipe's weight, or 1 if that is 0."""
    return [f"--losses.{name}={(getattr(config, name) or 1) if name in kept else 0}" for name in TERMS]


def _free(*losses: str, options: tuple[str, ...] = ()) -> Run:
    return Run("train", "separator.safetensors", (*FREE, *options), losses)


def _of_classes(*losses: str, options: tuple[str, ...] = ()) -> Run:
    return Run("train", "separator.safetensors", (*OF_CLASSES, *options), losses)


DETECTOR_ALONE = "detector_alone"

RUNS = {
    DETECTOR_ALONE: Run("evaluate"),
    "sep_sed": Run("train_sep", "denoiser.safetensors"),
    "strong_mse": _free("mse"),
    "weak": _free("mse", "weak"),
    "weak_dfl": _free("mse", "weak", "deep_feature"),
    "proposed": _free("mse", "weak", "deep_feature", "teacher"),
    "frame": _free("frame", options=("--optimiser.separation_share=0", "--optimiser.anchor_share=0")),
    "free": _free("mse", "frame"),
    "classes": _of_classes("mse", "own"),
    "classes_unconditioned": _of_classes("mse", "own", options=("--separator.conditioned=false",)),
    "classes_mse": _of_classes("mse"),
    "classes_own": _of_classes("own", options=("--optimiser.separation_share=0", "--optimiser.anchor_share=0")),
    "classes_dfl": _of_classes("mse", "own", "deep_feature"),
    "classes_weak": _of_classes("mse", "own", "weak"),
    "classes_teacher": _of_classes("mse", "own", "teacher"),
}

ROWS = {
    DETECTOR_ALONE: Row("SED only", DETECTOR_ALONE, DETECTOR_ONLY, 34.8),
    "sep_sed": Row("SEP+SED", "sep_sed", published=35.6),
    "sep_sed_no_average": Row("SEP+SED, no averaging", "sep_sed", SOURCE_ONLY, 33.4),
    "strong_mse": Row("strong-MSE", "strong_mse", published=34.5),
    "weak": Row("+weak", "weak", published=35.4),
    "weak_dfl": Row("+weak+DFL", "weak_dfl", published=36.7),
    "proposed": Row("proposed (+weak+DFL+teacher)", "proposed", published=37.0),
    "frame": Row("frame labels alone", "frame"),
    "free": Row("free sources: squared error, frame labels", "free"),
    "classes": Row("sources of classes", "classes"),
    "classes_unconditioned": Row("not conditioned", "classes_unconditioned"),
    "classes_mse": Row("without own cross-entropy", "classes_mse"),
    "classes_own": Row("without squared error", "classes_own"),
    "classes_dfl": Row("+DFL", "classes_dfl"),
    "classes_weak": Row("+weak", "classes_weak"),
    "classes_teacher": Row("+teacher", "classes_teacher"),
}

TABLES = {
    "Table 1: systems": (DETECTOR_ALONE, "sep_sed", "sep_sed_no_average", "proposed", "frame", "free", "classes"),
    "Table 2: losses": (DETECTOR_ALONE, "sep_sed", "strong_mse", "weak", "weak_dfl", "proposed"),
    "Table 3: sources of classes": (DETECTOR_ALONE, *(name for name in ROWS if name.startswith("classes"))),
}

#: The rows that are not in the paper.
ONLY_DEFAULT_RECIPE = ("frame", "free", *(name for name in ROWS if name.startswith("classes")))
