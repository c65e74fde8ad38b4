"""Recipes of mixtures: how many events, how loud, in which room."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass
class MixingConfig:
    """What a mixture is made of. Ranges are inclusive and drawn from uniformly; levels are in dB.

    A level is the RMS over the active part of a dry event (frames of 20 ms within 40 dB of its loudest); a
    room keeps it to about 1 dB.

    Attributes:
        n_events: how many foreground events.
        distinct_classes: draw that many classes first, each as likely as the others, then an event of each;
            otherwise draw events, each recording as likely as the others, so that some may share a class.
        foreground_db: level of each event.
        background_db: level of the background. With the reference "loudest": both bounds relative to the
            loudest event. With "quietest_ceiling": the lower one absolute, the upper one relative to the
            quietest event.
        background_reference: see `background_db`.
        gain_db: gain of the whole mixture.
        reference_db: the level in dB below full scale that 0 dB stands for.
        reverb: convolve each source with a response of one room.
        max_rir_seconds: responses are cut there.
    """

    n_events: tuple[int, int] = (2, 4)
    distinct_classes: bool = True
    foreground_db: tuple[float, float] = (-10.0, 0.0)
    background_db: tuple[float, float] = (-25.0, -8.0)
    background_reference: Literal["loudest", "quietest_ceiling"] = "loudest"
    gain_db: tuple[float, float] = (-20.0, 20.0)
    reference_db: float = -30.0
    reverb: bool = True
    max_rir_seconds: float = 0.5

    def __post_init__(self) -> None:
        self.validate()

    @classmethod
    def paper(cls) -> MixingConfig:
        """Section 3.2 to the letter: 1 to 5 events of any class, U(-35, 0) dB, background at most 5 dB
        above the quietest event."""
        return cls(
            n_events=(1, 5),
            distinct_classes=False,
            foreground_db=(-35.0, 0.0),
            background_db=(-35.0, 5.0),
            background_reference="quietest_ceiling",
            gain_db=(0.0, 0.0),
            reference_db=0.0,
        )

    @classmethod
    def balanced(cls) -> MixingConfig:
        """2 to 4 distinct classes within 10 dB, background 8 to 25 dB below: leaves the plateau of
        permutation invariant training, where one slot holds every event, sooner than the paper's levels."""
        return cls()

    def validate(self) -> None:
        """Raises ValueError, naming the option, for ranges that cannot be drawn from."""
        for name in ("n_events", "foreground_db", "background_db", "gain_db"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not all(map(math.isfinite, bounds)) or bounds[0] > bounds[1]:
                raise ValueError(f"mixing.{name} must be two numbers, the lower one first, got {bounds}.")
        if self.n_events[0] < 1:
            raise ValueError(f"mixing.n_events must start at 1 or more, got {self.n_events}.")
        if self.background_reference not in ("loudest", "quietest_ceiling"):
            raise ValueError(
                'mixing.background_reference must be "loudest" or "quietest_ceiling", got '
                f"{self.background_reference!r}."
            )
        lowest_ceiling = self.foreground_db[0] + self.background_db[1]
        if self.background_reference == "quietest_ceiling" and lowest_ceiling < self.background_db[0]:
            raise ValueError(
                f"mixing.background_db starts at {self.background_db[0]:g} dB, above the ceiling of "
                f"{lowest_ceiling:g} dB that an event of {self.foreground_db[0]:g} dB sets; lower its start."
            )
        if not math.isfinite(self.reference_db):
            raise ValueError(f"mixing.reference_db must be finite, got {self.reference_db}.")
        if not (math.isfinite(self.max_rir_seconds) and self.max_rir_seconds > 0):
            raise ValueError(f"mixing.max_rir_seconds must be above 0, got {self.max_rir_seconds}.")
