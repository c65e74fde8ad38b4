"""How many files the built-in corpus has, by the names of its sizes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Number of files: events per class, backgrounds, clips of each split, rooms, responses per room."""

    events: int
    backgrounds: int
    weak: int
    unlabelled: int
    synthetic: int
    validation: int
    rooms: int
    positions: int


SIZES = {
    "full": Size(200, 24, 100, 100, 60, 120, 8, 6),
    "large": Size(200, 24, 100, 100, 60, 600, 8, 6),  # the training material of "full"
    "stems": Size(1000, 100, 100, 100, 60, 120, 24, 6),  # what the networks in the package were trained on
    "tiny": Size(3, 3, 6, 6, 6, 8, 2, 3),
}
