"""Which recordings are held out to score on: whole groups, so that no recording is on both sides."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from task_aware.importing.items import Item

#: Share of the clips of each class that are held out.
HELD_OUT = 0.2

#: Share of the classes that folds must have on both sides to be respected.
BOTH_SIDES = 0.75

#: Names of parts of a split that are not for training.
_TESTS = {"test", "val", "valid", "validation", "eval", "evaluation", "public", "dev_test"}


def classes(item: Item) -> set[str]:
    """The classes of a clip."""
    return set(item.labels) | {event.label for event in item.events or ()}


def hold_out(items: Sequence[Item]) -> set[str]:
    """The names of the clips to hold out.

    If all clips have a fold, these are the groups that lie in held-out folds as a whole: those called test, val, ...,
    or the last fifth of numbered ones. Where this would leave more than a quarter of the classes on one side, or there
    are no folds, groups are drawn by their names, about a fifth of each class. A clip without a group is a group of its
    own. Each class keeps a group for training; one with a single group is not held out.
    """
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[f"group {item.group}" if item.group else f"clip {item.name}"].append(item)
    folds = _test_folds({item.fold for item in items}) if all(item.fold for item in items) else set()
    sides: dict[bool, list[list[Item]]] = {True: [], False: []}
    for members in groups.values():
        sides[all(item.fold in folds for item in members)].append(members)
    held = sides[True]
    found = {side: {label for of_one in sides[side] for item in of_one for label in classes(item)} for side in sides}
    if len(found[True] & found[False]) < BOTH_SIDES * len(found[True] | found[False]):
        held = _drawn(groups)
    return {item.name for members in held for item in members}


def _test_folds(folds: set[str]) -> set[str]:
    named = {fold for fold in folds if fold.lower() in _TESTS}
    if named or len(folds) < 2 or not all(fold.isdecimal() for fold in folds):
        return named
    ordered = sorted(folds, key=int)
    return set(ordered[-max(1, round(HELD_OUT * len(ordered))) :])


def _drawn(groups: dict[str, list[Item]]) -> list[list[Item]]:
    of_class: dict[str, list[str]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for name in sorted(groups, key=lambda name: hashlib.sha256(name.encode(errors="surrogateescape")).digest()):
        for label in sorted(set().union(*map(classes, groups[name]))):
            of_class[label].append(name)
        for item in groups[name]:
            for label in classes(item):
                counts[label] += 1
    left = {label: len(names) for label, names in of_class.items()}
    held: dict[str, None] = {}
    held_counts: dict[str, int] = defaultdict(int)
    for label in sorted(of_class, key=lambda label: (len(of_class[label]), label)):  # the rarest have the first choice
        for name in of_class[label]:
            present = set().union(*map(classes, groups[name]))
            if held_counts[label] >= HELD_OUT * counts[label]:
                break
            if name in held or any(left[other] < 2 for other in present):
                continue
            held[name] = None
            for other in present:
                left[other] -= 1
                held_counts[other] += sum(other in classes(item) for item in groups[name])
    return [groups[name] for name in held]
