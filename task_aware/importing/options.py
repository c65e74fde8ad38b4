"""What is imported, and how. It is read without NumPy and torch, before any file is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Pauses up to this long stay inside an event.
GAP_SECONDS = 0.5


@dataclass(frozen=True)
class Columns:
    """Names of columns as given; None looks for a usual name. `first_label` keeps only the first of several labels."""

    filename: str | None = None
    label: str | None = None
    group: str | None = None
    first_label: bool = False


@dataclass(frozen=True)
class Wanted:
    """What is imported: the folder of the recordings, the table if there is one, its columns, and how.

    Attributes:
        source, table, columns: as for `read_collection`.
        background: classes that become backgrounds.
        gap: pauses up to this many seconds stay inside an event.
    """

    source: Path
    table: Path | None = None
    columns: Columns = Columns()
    background: tuple[str, ...] = ()
    gap: float = GAP_SECONDS
