"""Sound event labels: events, their encoding as arrays, and names of classes in files and tables."""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import numpy as np

from task_aware.base.errors import DataError

#: The classes of DESED, and of the built-in corpus.
DESED_CLASSES: tuple[str, ...] = (
    "Alarm_bell_ringing",
    "Blender",
    "Cat",
    "Dishes",
    "Dog",
    "Electric_shaver_toothbrush",
    "Frying",
    "Running_water",
    "Speech",
    "Vacuum_cleaner",
)

# What cannot be part of a file's name on some system (also the sign of encoding itself), and what would be hidden,
# dropped by a file system, or taken for one of DESED's suffixes.
_UNSAFE = re.compile(r'[%/\\:*?"<>|\x00-\x1f\x7f]|^[.@#$_~ ]|[. ]$|(?<=_nO)(n|ff)$')

#: Names beside those of classes: the other parts of a mixture, and folders that systems leave.
_TAKEN = {"background", "mixture", "rest", "lost+found", "System Volume Information"}

# Times are decimal fractions, so rounding alone may keep onset / frame_seconds from being a whole number.
_FRAME_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Event:
    """One labelled sound event; `onset` and `offset` in seconds from the start of its clip."""

    onset: float
    offset: float
    label: str


def written_times(event: Event) -> tuple[str, str]:
    """Onset and offset as tables have them, in seconds with three decimals; rounding leaves an event at least 1 ms."""
    onset, offset = f"{event.onset:.3f}", f"{event.offset:.3f}"
    return onset, offset if float(offset) > float(onset) else f"{float(onset) + 0.001:.3f}"


#: The events of each file by filename; the sequence of a file without events is empty.
Events = Mapping[str, Sequence[Event]]


def safe_name(label: str) -> str:
    """The name of a class in files and folders: itself, but for characters that no name may have, as `%2F`.

    `label_of` undoes it.
    """
    if label in _TAKEN:
        return f"%{ord(label[0]):02X}{label[1:]}"
    return _UNSAFE.sub(lambda found: "".join(f"%{ord(sign):02X}" for sign in found[0]), label)


def label_of(name: str) -> str:
    """The class that a folder's name stands for."""
    return unicodedata.normalize("NFC", unquote(name, errors="strict") if "%" in name else name)


def join_labels(labels: Iterable[str]) -> str:
    """Labels as one field of a table, separated by commas; one that holds a comma or a quote is put in quotes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(labels)
    return text.getvalue()


def split_labels(text: str) -> list[str]:
    """The labels of a field as `join_labels` writes it. Raises csv.Error if its quotes do not match."""
    rows = csv.reader([text] if text else [], skipinitialspace=True, strict=True)
    return [name.strip() for row in rows for name in row if name.strip()]


#: Classes that get a line each on the screen; of more, a line tells about all.
MOST_LISTED = 60


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names for a sentence: at most this many, and how many there are."""
    more = f", ... ({len(names):,} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class LabelEncoder:
    """Encodes labels as arrays with one column per class.

    Args:
        labels: the C class names, in the order of the columns.

    Raises:
        ValueError: there are no labels, or one occurs twice.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        if isinstance(labels, str) or not labels:
            raise ValueError(f"labels must be a non-empty sequence of class names, got {labels!r}.")
        self.labels: tuple[str, ...] = tuple(labels)
        self._index = {label: column for column, label in enumerate(self.labels)}
        if len(self._index) != len(self.labels):
            repeated = sorted({label for label in self.labels if self.labels.count(label) > 1})
            raise ValueError(f"labels must be unique, got {', '.join(repeated)} more than once.")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"LabelEncoder({list(self.labels)!r})"

    def index(self, label: str) -> int:
        """Column of `label`. Raises DataError if the label is unknown."""
        try:
            return self._index[label]
        except KeyError:
            raise DataError(f"Unknown label {label!r}; expected one of {listed(self.labels)}.") from None

    def weak(self, names: Iterable[str]) -> np.ndarray:
        """Clip-level target: float32 [C], 1 for each class in `names`."""
        target = np.zeros(len(self), dtype=np.float32)
        for name in names:
            target[self.index(name)] = 1.0
        return target

    def strong(self, events: Iterable[Event], n_frames: int, frame_seconds: float) -> np.ndarray:
        """Frame-level target: float32 [T', C].

        A frame is active if an event overlaps it: from floor(onset / frame_seconds) up to, but not including,
        ceil(offset / frame_seconds). Frames from `n_frames` on are cut.
        """
        if n_frames < 0 or not frame_seconds > 0:
            raise ValueError(
                f"n_frames must be at least 0 and frame_seconds must be above 0, got {n_frames} and {frame_seconds}."
            )
        target = np.zeros((n_frames, len(self)), dtype=np.float32)
        for event in events:
            first = math.floor(event.onset / frame_seconds + _FRAME_TOLERANCE)
            last = math.ceil(event.offset / frame_seconds - _FRAME_TOLERANCE)
            target[max(first, 0) : max(last, 0), self.index(event.label)] = 1.0
        return target
