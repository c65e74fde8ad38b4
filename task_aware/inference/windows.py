"""Cuts long recordings into overlapping windows of equal length.

Windows begin on the grid of the detector's output frames, and their feature frames are those of the whole recording:
each window includes the neighbouring samples that its first and last frames cover, and only the ends of the recording
are reflected. A feature frame therefore depends on the window's boundaries only through the clamp at `top_db` below the
window's maximum; probabilities also depend on them through the networks' normalisation and recurrence.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from task_aware.base.errors import RecordingError
from task_aware.data.samples import check_level
from task_aware.models.detector import Detector


@dataclass(frozen=True)
class Window:
    """A stretch of a recording.

    Attributes:
        samples: float32 [n], beginning `lead` samples before the stretch.
        lead: samples of context at the beginning, a multiple of the hop; 0 if the window is the whole recording.
        first: feature frame of the recording at which the stretch begins.
        stop: sample of the recording at which the stretch ends (exclusive).
        last: whether this is the last window of the recording.
    """

    samples: np.ndarray
    lead: int
    first: int
    stop: int
    last: bool


@dataclass(frozen=True)
class Windowing:
    """Sizes of windows, in frames of a front end.

    Attributes:
        n_fft, hop: transform length and hop of the front end, samples.
        pooling: feature frames per output frame of the detector.
        n_frames: feature frames per window, a multiple of `pooling`.
        overlap: feature frames that neighbouring windows share, a multiple of `pooling`.
    """

    n_fft: int
    hop: int
    pooling: int
    n_frames: int
    overlap: int

    @classmethod
    def of(cls, detector: Detector, seconds: float, overlap_seconds: float) -> Windowing:
        """Windows of about `seconds`, on the grid of a detector.

        Raises ValueError if the overlap is not between 0 and half a window, or if the detector's output frames are not
        a whole multiple of its feature frames.
        """
        if not 0 <= overlap_seconds <= seconds / 2:
            raise ValueError(
                f"windows of {seconds:g} s cannot overlap by {overlap_seconds:g} s; "
                "the overlap must be between 0 and half a window"
            )
        front_end = detector.feature_config
        pooling = round(detector.frame_seconds / front_end.frame_seconds)
        if pooling < 1 or not math.isclose(pooling * front_end.frame_seconds, detector.frame_seconds, rel_tol=1e-6):
            raise ValueError(
                f"the detector's output frames of {detector.frame_seconds} s are not a multiple of its feature frames "
                f"of {front_end.frame_seconds} s, so windows cannot be joined"
            )
        n_frames = front_end.n_frames(round(seconds * front_end.sample_rate)) // pooling * pooling
        overlap = min(round(overlap_seconds / detector.frame_seconds), n_frames // pooling // 2) * pooling
        if (n_frames - 1) * front_end.hop <= front_end.n_fft:
            raise ValueError(f"a window of {seconds:g} s is too short for this detector; use a longer one")
        return cls(front_end.n_fft, front_end.hop, pooling, n_frames, overlap)

    @property
    def lead(self) -> int:
        """Samples of context on either side of a window."""
        return max(-(-self.n_fft // 2 // self.hop), self.pooling) * self.hop

    def cut(self, blocks: Iterable[np.ndarray], name: str = "the recording") -> Iterator[Window]:
        """Cuts consecutive blocks of samples into windows; a recording that fits into one has no context.

        Raises RecordingError, which names `name`, if the recording is too short for the transform or the detector, not
        finite, or far beyond full scale.
        """
        kept, origin = np.empty(0, dtype=np.float32), 0  # samples from `origin` on
        length, first = 0, 0
        held: Window | None = None  # held back, as a window may be the last until another follows
        for block in blocks:
            check_level(block, name)
            kept = np.concatenate([kept, block])
            length += len(block)
            while length >= (first + self.n_frames) * self.hop + self.lead:
                if held is None:
                    kept, origin = self._reflected(kept), -self.lead
                else:
                    yield held
                held = self._window(kept, origin, first)
                # the last window ends with the recording, so it may begin before the next regular start
                unused = max(0, first * self.hop - self.lead - origin)
                kept, origin = kept[unused:], origin + unused
                first += self.n_frames - self.overlap
        n_frames = length // self.hop + 1
        if length <= self.n_fft // 2 or n_frames < self.pooling:
            raise RecordingError(
                f"{name} has {length} samples at the detector's sample rate, too few for one output frame"
            )
        if n_frames <= self.n_frames:
            yield Window(kept, 0, 0, length, last=True)
            return
        if held is None:
            kept, origin = self._reflected(kept), -self.lead
        kept = np.pad(kept, (0, self.lead + self.hop), mode="reflect")
        final = n_frames // self.pooling * self.pooling - self.n_frames
        while held is None or held.first < final:
            if held is not None:
                yield held
            held = self._window(kept, origin, min(first, final))
            first += self.n_frames - self.overlap
        yield replace(held, stop=length, last=True)

    def _reflected(self, samples: np.ndarray) -> np.ndarray:
        """Prepends the reflected context of a recording's first window."""
        return np.pad(samples, (self.lead, 0), mode="reflect")

    def _window(self, kept: np.ndarray, origin: int, first: int) -> Window:
        stop = (first + self.n_frames) * self.hop
        begin = first * self.hop - self.lead - origin
        samples = kept[begin : stop + self.lead - origin]
        return Window(samples.copy(), self.lead, first, stop, last=False)
