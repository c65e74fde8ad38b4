"""Reads and writes the layout of DCASE's task on spatial semantic segmentation of sound scenes ("S5").

`soundscape/NAME.wav` is a mixture, and `oracle_target/NAME_K_Label.wav` or `NAME_Label.wav` is one of its sources; K
tells sources of one class apart. Estimates are written in the same form into a folder of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from task_aware.base.errors import DataError

#: The folders of the mixtures and of their true sources.
SOUNDSCAPES, TARGETS = "soundscape", "oracle_target"

#: The classes of DCASE 2026 task 4.
S5_CLASSES: tuple[str, ...] = (
    "AlarmClock",
    "BicycleBell",
    "Blender",
    "Buzzer",
    "Clapping",
    "Cough",
    "CupboardOpenClose",
    "Dishes",
    "Doorbell",
    "FootSteps",
    "HairDryer",
    "MechanicalFans",
    "MusicalKeyboard",
    "Percussion",
    "Pour",
    "Speech",
    "Typing",
    "VacuumCleaner",
)

_SUFFIX = ".wav"
_NUMBERED = re.compile(r"(?:\d+_)?(.+)", re.DOTALL)


@dataclass(frozen=True)
class LabelledSource:
    """A file that holds one source of a mixture, and its class."""

    label: str
    path: Path


@dataclass(frozen=True)
class Scene:
    """A mixture and its sources, none for a mixture without any target."""

    name: str
    path: Path
    sources: tuple[LabelledSource, ...] = ()


def is_scenes(root: Path) -> bool:
    """Whether a folder is in this layout."""
    return (root / SOUNDSCAPES).is_dir()


def source_name(scene: str, number: int, label: str) -> str:
    """The name of the file of a mixture's source.

    Raises DataError if the label cannot be part of it.
    """
    if not label or "/" in label or re.match(r"\d+_", label):
        raise DataError(
            f"the class {label!r} cannot be written in the challenge's layout; rename it, without slashes and "
            "without a number and `_` in front"
        )
    return f"{scene}_{number}_{label}{_SUFFIX}"


def read_scenes(root: Path, sources: Path | None = None, labels: Sequence[str] | None = None) -> list[Scene]:
    """The mixtures of `root/soundscape`, sorted by name, each with its sources.

    A source belongs to the mixture with the longest name that its own begins with, before a `_`: `eval_10_Speech.wav`
    is of `eval_10`, not of `eval_1`.

    Args:
        root: the data set.
        sources: the folder of the sources; by default that of the true ones, `root/oracle_target`.
        labels: the classes; None takes whatever the sources' names have.

    Raises:
        DataError: a folder is missing or holds no mixtures, a source is of no mixture, or its class is unknown.
    """
    folder, sources = root / SOUNDSCAPES, sources or root / TARGETS
    for place, content in ((folder, "mixtures, NAME.wav"), (sources, "sources, NAME_K_Label.wav")):
        if not place.is_dir():
            raise DataError(f"{place} is not a folder; expected one with {content}")
    mixtures = {path.stem: path for path in _recordings(folder)}
    if not mixtures:
        raise DataError(f"there are no recordings ({_SUFFIX}) in {folder}; expected mixtures, NAME.wav")
    found: dict[str, list[LabelledSource]] = {name: [] for name in mixtures}
    for path in _recordings(sources):
        name = _mixture_of(path.stem, mixtures)
        match = _NUMBERED.fullmatch(path.stem[len(name) + 1 :]) if name is not None else None
        if name is None or match is None:
            raise DataError(
                f"{path} belongs to none of the {len(mixtures):,} mixtures in {folder}; expected NAME_K_Label.wav or "
                "NAME_Label.wav with the name of one"
            )
        if labels is not None and match[1] not in labels:
            raise DataError(f"{path} is of the class {match[1]}; the classes are {', '.join(labels)}")
        found[name].append(LabelledSource(match[1], path))
    return [Scene(name, path, tuple(found[name])) for name, path in mixtures.items()]


def _recordings(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == _SUFFIX and not path.name.startswith("."))


def _mixture_of(stem: str, mixtures: dict[str, Path]) -> str | None:
    """The longest name of a mixture that a source's name begins with."""
    place = stem.rfind("_")
    while place > 0:
        if stem[:place] in mixtures:
            return stem[:place]
        place = stem.rfind("_", 0, place)
    return None
