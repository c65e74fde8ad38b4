"""Options of dynamic mixing: number of events, levels and reverberation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

#: `reference_db` of the built-in corpus, and of data that state none.
BUILTIN_REFERENCE_DB = -32.0


@dataclass
class MixingConfig:
    """Options of dynamic mixing. Values are drawn uniformly from ranges, which include both bounds.

    The level of an event is its RMS over the active part of the dry recording (20 ms frames within 40 dB of the
    loudest one). Reverberation preserves it to about 1 dB.

    Attributes:
        n_events: range of the number of foreground events per mixture; from 0 on, some mixtures have none.
        distinct_classes: draw distinct classes with equal probability and one event of each; otherwise draw
            recordings with equal probability, so that several events may share a class.
        dupse_rate: probability with which a mixture of two or more events has two of one class, from different
            recordings and in different places of the room, each of them a source of its own; with distinct classes only
            (the name is that of DCASE 2026 task 4).
        foreground_db: range of the level of each event, dB relative to `reference_db`.
        background_db: range of the level of the background, dB. If `background_reference` is "loudest", both bounds
            are relative to the loudest event. If it is "quietest_ceiling", the lower bound is a level like
            `foreground_db` and the upper bound is relative to the quietest event.
        background_reference: what `background_db` refers to: "loudest" or "quietest_ceiling".
        gain_db: range of the gain of the whole mixture, dB.
        reference_db: level that 0 dB stands for, dB relative to full scale; null takes it from the data
            (`metadata/levels.tsv`), or -32, the level of the built-in corpus, where there is no such table.
        event_seconds: range of the length at which events are cut, seconds; of a longer one a stretch is taken at
            random, a shorter one stays whole. null: events are cut at the length of the mixture only.
        speed: range of the speed at which events are played, which changes length and pitch; 1 is as recorded. Drawn
            evenly in octaves.
        reverb: convolve each source with a room impulse response; all of a mixture come from one room.
        max_rir_seconds: length at which room impulse responses are cut, seconds.
        rir_receiver: of SOFA files, the receiver to take, counted from 0; null takes all, each as a room of its own.
        rir_measurements: of SOFA files, the measurements to take, counted from 0; null takes all.
    """

    n_events: tuple[int, int] = (2, 4)
    distinct_classes: bool = True
    dupse_rate: float = 0.0
    foreground_db: tuple[float, float] = (-10.0, 0.0)
    background_db: tuple[float, float] = (-25.0, -8.0)
    background_reference: Literal["loudest", "quietest_ceiling"] = "loudest"
    gain_db: tuple[float, float] = (-20.0, 20.0)
    reference_db: float | None = -30.0
    event_seconds: tuple[float, float] | None = None
    speed: tuple[float, float] = (1.0, 1.0)
    reverb: bool = True
    max_rir_seconds: float = 0.5
    rir_receiver: int | None = None
    rir_measurements: list[int] | None = None

    def __post_init__(self) -> None:
        self.validate()

    @classmethod
    def paper(cls) -> MixingConfig:
        """The options of the paper's section 3.2: 1 to 5 events of any class at U(-35, 0) dB, with the background
        at most 5 dB above the quietest event."""
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
        """2 to 4 distinct classes within 10 dB of each other, with the background 8 to 25 dB below the loudest.

        With these levels, permutation-invariant training leaves its initial plateau, where one slot holds every
        event, sooner than with the paper's.
        """
        return cls()

    def validate(self) -> None:
        """Raises ValueError, naming the option, if a value is out of range."""
        for name in ("n_events", "foreground_db", "background_db", "gain_db"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not all(map(math.isfinite, bounds)) or bounds[0] > bounds[1]:
                raise ValueError(f"mixing.{name} must be two finite numbers, the lower one first, got {bounds}.")
        for name in ("event_seconds", "speed"):
            bounds = getattr(self, name)
            if bounds is not None and not (len(bounds) == 2 and 0 < bounds[0] <= bounds[1] < math.inf):
                raise ValueError(
                    f"mixing.{name} must be two finite numbers above 0, the lower one first, got {bounds}."
                )
        if self.n_events[0] < 0 or self.n_events[1] < 1:
            raise ValueError(f"mixing.n_events must start at 0 or more and end at 1 or more, got {self.n_events}.")
        if not 0 <= self.dupse_rate <= 1:
            raise ValueError(f"mixing.dupse_rate must be between 0 and 1, got {self.dupse_rate}.")
        if self.dupse_rate and not self.distinct_classes:
            raise ValueError(
                f"mixing.dupse_rate is {self.dupse_rate:g}, but classes are not distinct anyway; set it to 0, or turn "
                "mixing.distinct_classes on."
            )
        if self.background_reference not in ("loudest", "quietest_ceiling"):
            raise ValueError(
                'mixing.background_reference must be "loudest" or "quietest_ceiling", got '
                f"{self.background_reference!r}."
            )
        lowest_ceiling = self.foreground_db[0] + self.background_db[1]
        if self.background_reference == "quietest_ceiling" and lowest_ceiling < self.background_db[0]:
            raise ValueError(
                f"mixing.background_db starts at {self.background_db[0]:g} dB, above the ceiling of "
                f"{lowest_ceiling:g} dB set by an event of {self.foreground_db[0]:g} dB; lower its first number."
            )
        if self.reference_db is not None and not math.isfinite(self.reference_db):
            raise ValueError(f"mixing.reference_db must be finite, got {self.reference_db}.")
        if not (math.isfinite(self.max_rir_seconds) and self.max_rir_seconds > 0):
            raise ValueError(f"mixing.max_rir_seconds must be above 0, got {self.max_rir_seconds}.")
        if self.rir_receiver is not None and self.rir_receiver < 0:
            raise ValueError(f"mixing.rir_receiver must be 0 or more, got {self.rir_receiver}.")
        if self.rir_measurements is not None and (not self.rir_measurements or min(self.rir_measurements) < 0):
            raise ValueError(f"mixing.rir_measurements must be numbers from 0 on, got {self.rir_measurements}.")
