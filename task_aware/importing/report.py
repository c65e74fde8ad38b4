"""What an import found: counts, lengths and levels of each class, and doubts, as a report and as numbers to draw."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from task_aware.base.tables import write_table
from task_aware.data.labels import listed
from task_aware.data.verify_tables import table
from task_aware.importing.items import Item
from task_aware.importing.splitting import classes
from task_aware.importing.writing import Written

#: A class with fewer events is learned by heart rather than learned.
FEW_EVENTS = 20

#: A class that sounds for this share of its clips is a steady one.
_STEADY = 0.95

EXPECT_FEW = (
    "With so few, the detector mostly learns these very recordings: expect the separator to work on mixtures of them, "
    "and little on new ones until there are some 30 recordings a class."
)


class Contents:
    """What an import wrote.

    Attributes:
        background: the classes that became backgrounds.
        clips: number of recordings by (class, held out).
        lengths, levels: seconds and dB of each isolated event by (class, held out).
        validation: what there is to score on; empty if nothing.
        problems: rows of errors.tsv.
    """

    def __init__(self, background: frozenset[str]) -> None:
        self.background = background
        self.clips: Counter[tuple[str, bool]] = Counter()
        self.lengths: dict[tuple[str, bool], list[float]] = defaultdict(list)
        self.levels: dict[tuple[str, bool], list[float]] = defaultdict(list)
        self.groups: dict[tuple[str, bool], set[str]] = defaultdict(set)
        self.validation = ""
        self.problems: Sequence[tuple[str, str, str]] = ()
        self._steady: dict[str, list[float]] = defaultdict(list)
        self._seconds = self._cut = 0.0
        self._backgrounds = 0
        self._several = 0

    def add(self, item: Item, written: Written, held: bool) -> None:
        """Counts a recording."""
        for label in classes(item):
            self.clips[label, held] += 1
            self.groups[label, held].add(item.group or item.name)
        for label, seconds, level in written.events:
            self.lengths[label, held].append(seconds)
            self.levels[label, held].append(level)
        self._seconds += written.seconds
        self._backgrounds += written.backgrounds
        self._several += len(item.labels) > 1
        if written.steady is not None:
            self._cut += (1 - written.steady) * written.seconds
            for label in item.labels:
                self._steady[label].append(written.steady)

    @property
    def labels(self) -> list[str]:
        """The classes to detect, sorted."""
        return sorted({label for label, _ in self.clips} - self.background)

    def has_events(self, *, held: bool) -> bool:
        """Whether there is an isolated event for training, or held out."""
        return any(found for (_, side), found in self.lengths.items() if side == held)

    def doubts(self) -> list[str]:
        """Sentences on what may go wrong with these data, and what to do."""
        found = []
        few = [label for label in self.labels if len(self.lengths[label, False]) < FEW_EVENTS]
        if few:
            least = min(len(self.lengths[label, False]) for label in few)
            found.append(
                f"{len(few)} of {len(self.labels)} classes have fewer than {FEW_EVENTS} events to train on (the fewest "
                f"{least}): {listed(few, 10)}. {EXPECT_FEW}"
            )
        if alone := [label for label in self.labels if self.clips[label, False] and not self.clips[label, True]]:
            found.append(
                f"nothing is held out of {listed(alone, 10)}, which come from one recording each or lie in the "
                "training folds; they are trained, but not scored"
            )
        if unheard := [label for label in self.labels if not self.lengths[label, False]]:
            found.append(f"there is no isolated event of {listed(unheard, 10)} for training; no mixture has them")
        steady = [label for label, shares in self._steady.items() if np.mean(shares) > _STEADY and len(shares) > 1]
        if steady := sorted(set(steady) - self.background):
            found.append(
                f"{listed(steady, 10)} sound all the time; if they are what is heard behind the others, give them to "
                "--background"
            )
        if not self._backgrounds:
            found.append("there are no backgrounds, so mixtures have none; name steady classes with --background")
        if self._several:
            found.append(
                f"{self._several:,} clips have several labels and no times; they give no isolated events (if the first "
                "label says it all, add --first-label)"
            )
        if not self.validation:
            found.append("nothing could be held out to score on, which `train` needs; add recordings of other sources")
        return found

    def report(self) -> str:
        """Formats everything as text."""
        rows = []
        for label in self.labels:
            levels = self.levels[label, False]
            low, middle, high = _quantiles(levels) if levels else ("-", "-", "-")
            trained, held = (self.clips[label, side] for side in (False, True))
            events, scored = (len(self.lengths[label, side]) for side in (False, True))
            length = f"{np.median(self.lengths[label, False]):.2f}" if events else "-"
            rows.append((label, trained, held, events, scored, length, low, middle, high))
        header = ("class", "clips", "held out", "events", "held out", "seconds", "10 %", "level dB", "90 %")
        share = self._cut / self._seconds if self._seconds else 0.0
        groups = sum(len(self.groups[label, side]) for label in self.labels for side in (False, True))
        lines = [
            table(header, rows),
            "",
            f"{len(self.labels):,} classes from {groups:,} recordings or groups, {self._seconds / 3600:.2f} hours",
            f"{self._backgrounds:,} backgrounds: {listed(sorted(self.background)) or 'none'}",
            f"cut: {100 * share:.1f} % of the time, listed in cuts.tsv; what could be heard of it is in cuts/",
            f"to score on: {self.validation or 'nothing'}",
        ]
        if self.problems:
            lines.append(f"{len(self.problems):,} rows or files could not be used as they are: see errors.tsv")
            lines += [f"  {file}{':' + line if line else ''}: {error}" for file, line, error in self.problems[:5]]
        if doubts := self.doubts():
            lines += ["", "doubts", *(f"- {doubt}" for doubt in doubts)]
        return "\n".join(lines)


def write_levels(path: Path, contents: Contents) -> None:
    """Writes the levels of the events to train on, at which mixtures are made."""
    rows = []
    for label in contents.labels:
        if levels := contents.levels[label, False]:
            seconds = sum(contents.lengths[label, False])
            rows.append((label, str(len(levels)), f"{seconds:.2f}", *_quantiles(levels)))
    write_table(path, ("event_label", "events", "seconds", "low_db", "median_db", "high_db"), rows)


def _quantiles(levels: Sequence[float]) -> tuple[str, str, str]:
    low, middle, high = np.quantile(levels, (0.1, 0.5, 0.9))
    return f"{low:.1f}", f"{middle:.1f}", f"{high:.1f}"
