"""Detects events in a live stream: takes chunks of any size and returns each event as soon as it is final.

The events are the same as when the whole signal is analysed at once. The front end and the median filter process each
chunk with as much context as they need; the networks are causal and remember their state.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TypeVar, cast

import numpy as np
import torch
from scipy.ndimage import median_filter
from torch import Tensor, nn

from task_aware.data.labels import Event
from task_aware.data.offset import FIRST_SECONDS, OffsetFilter
from task_aware.data.samples import as_float, check_level
from task_aware.models.causal import start_stream
from task_aware.models.condition import condition_of, condition_size
from task_aware.models.copies import listening_copy
from task_aware.models.crnn import CRNN, GatedBlock
from task_aware.models.denoiser import DenoisedDetector
from task_aware.models.detector import median_frames_of
from task_aware.models.merging import merge_sources
from task_aware.models.opening import detector_of, open_model
from task_aware.models.system import ClassSeparator, Separator

Module = TypeVar("Module", bound=nn.Module)

#: Most output frames that the networks process at once; the activations of longer chunks would fill the memory.
MOST_FRAMES = 256


def check_causal(model: nn.Module) -> None:
    """Raises ValueError if a model depends on future samples."""
    detector = detector_of(model)
    reasons = []
    if isinstance(model, Separator) and not model.mask_network.config.causal:
        reasons.append("its mask network looks ahead (separator.causal)")
    if isinstance(model, DenoisedDetector):
        reasons.append("its denoiser looks ahead")
    if not isinstance(detector, CRNN) or not detector.config.causal:
        reasons.append("its detector is not a causal CRNN (crnn.causal)")
    if math.isfinite(detector.feature_config.top_db):
        reasons.append("its features depend on the maximum of the whole signal (features.top_db must be .inf)")
    if reasons:
        raise ValueError(
            f"this model cannot process a stream: {', and '.join(reasons)}; train a causal one with "
            "--config causal_builtin"
        )


@torch.no_grad()
def streaming_copy(model: Module) -> Module:
    """A copy that shares the model's weights and remembers a stream, in evaluation mode."""
    copied = listening_copy(model)
    start_stream(copied)
    for part in copied.modules():
        if isinstance(part, GatedBlock):
            part.folded = part.fold()  # a tenth of the time of a chunk
    return copied


class FrameStream:
    """Computes the frame probabilities of a stream.

    Args:
        model: a causal separator or detector. It is not changed: the stream's state is kept in a copy that shares its
            weights.
    """

    def __init__(self, model: nn.Module) -> None:
        check_causal(model)
        self.model = streaming_copy(model)
        self.detector = cast(CRNN, detector_of(self.model))
        self.lookahead, self.detector.lookahead = self.detector.lookahead, 0
        self.pooling = self.detector.time_pooling
        of_classes = isinstance(self.model, ClassSeparator)
        self.condition = StreamedCondition(self.detector, self.lookahead) if of_classes else None
        self.n_samples = 0
        self._kept = np.empty(0, dtype=np.float32)  # the samples from feature frame `_origin` on
        self._origin = 0
        self._next = 0  # the next feature frame to process
        self._early = self.lookahead  # answers still to come for frames before the first

    @torch.inference_mode()
    def push(self, samples: np.ndarray, *, last: bool = False) -> np.ndarray:
        """Returns the probabilities `[T', C]` that the next samples `[n]` make final; with `last`, all that remain.

        A signal shorter than an output frame, or of at most half a window, has none.
        """
        front_end = self.detector.feature_config
        half, hop = front_end.n_fft // 2, front_end.hop
        self._kept = np.concatenate([self._kept, samples])
        self.n_samples += len(samples)
        # a frame is final once its window's samples have arrived; the first, which is reflected, needs one more
        n_final = (self.n_samples - half - 1) // hop + 1
        if last and n_final > 0:
            n_final = front_end.n_frames(self.n_samples)
        n_pools = (n_final - self._next) // self.pooling
        if n_final <= 0 or not (n_pools or last):
            return np.empty((0, len(self.detector.labels)), dtype=np.float32)
        features = self._features(n_final - self._next if last else n_pools * self.pooling)
        if last:  # the frames of an incomplete pool still count as lookahead
            n_pools += self.lookahead
            features = nn.functional.pad(features, (0, n_pools * self.pooling - features.shape[-1]))
        parts = features.split(MOST_FRAMES * self.pooling, dim=-1) if n_pools else ()
        frame = torch.cat([self.detector.mean.new_empty(0, len(self.detector.labels)), *map(self._answer, parts)])
        n_early = min(self._early, len(frame))
        self._early -= n_early
        return frame[n_early:].cpu().numpy()

    def _features(self, n_frames: int) -> Tensor:
        """The next frames of scaled log-mel, of the mixture and a separator's sources, `[1, 1 + S, F, n_frames]`."""
        separator = self.model if isinstance(self.model, Separator) else None
        n_sources = separator.mask_network.config.n_sources if separator else 0
        front_end, mean, std = self.detector.feature_config, self.detector.mean, self.detector.std
        parts = [mean.new_empty(1, 1 + n_sources, front_end.n_mels, 0)]
        if n_frames:
            waveform = torch.from_numpy(self._kept).to(mean.device)
            mel = front_end.mel(waveform, backend=self.detector.backend)[None, :, self._next - self._origin :]
            for part in mel[..., :n_frames].split(MOST_FRAMES * self.pooling, dim=-1):
                mixture = front_end.scale(front_end.log_mel(part), mean, std)[:, None]
                parts.append(torch.cat([mixture, self._separate(part, mixture[:, 0])], 1) if separator else mixture)
        self._next += n_frames
        # the front end reflects its input at the start: keep the samples that the next frame's window covers
        origin = max(0, self._next - math.ceil(front_end.n_fft / 2 / front_end.hop))
        self._kept = self._kept[(origin - self._origin) * front_end.hop :]
        self._origin = origin
        return torch.cat(parts, dim=-1)

    def _separate(self, mel: Tensor, features: Tensor) -> Tensor:
        """The sources' features `[1, S, F, n]` in the next frames of the mixture, `[1, F, n]` each."""
        if isinstance(self.model, ClassSeparator) and self.condition is not None:
            condition = self.condition.of_next(features)
            return self.model.separate_classes(mel, condition, self.model.all_classes(mel)).features
        return cast(Separator, self.model).separate(mel).features

    def _answer(self, features: Tensor) -> Tensor:
        """Merged probabilities `[T', C]`; mixture and sources form one batch, as layers remember only the last call."""
        frame = self.detector(features[0]).frame
        if not isinstance(self.model, Separator):
            return frame[0]
        return merge_sources(frame[None, 1:], frame[:1], self.model.merge)[0]


class StreamedCondition:
    """What the detector found in the mixture, for the mask network of a `ClassSeparator`, frame by frame.

    It has its own copy of the detector, because layers remember only the last call.

    Args:
        detector: the causal detector, without lookahead.
        lookahead: output frames by which its answers are late; nothing was found before the first.
    """

    def __init__(self, detector: CRNN, lookahead: int) -> None:
        self.detector = streaming_copy(detector)
        self._silent = lookahead
        self._last: Tensor | None = None

    def of_next(self, features: Tensor) -> Tensor:
        """`[1, F, n]` -> `[1, conditioning, n]`; an incomplete pool at the end has what was found last."""
        n_frames = features.shape[-1]
        if n_frames < self.detector.time_pooling:
            last = features.new_zeros(1, condition_size(self.detector), 1) if self._last is None else self._last
            return last.expand(-1, -1, n_frames)
        condition = condition_of(self.detector, self.detector(features), n_frames)
        n_silent = min(self._silent * self.detector.time_pooling, n_frames)
        condition[:, : len(self.detector.labels), :n_silent] = 0
        self._silent -= n_silent // self.detector.time_pooling
        self._last = condition[..., -1:]
        return condition


class EventStream:
    """Decodes a stream of frame probabilities into the events that `decode` finds in the whole signal.

    Args:
        labels: the classes, in the order of the probabilities' columns.
        frame_seconds: seconds between two frames.
        threshold: probability from which on a class is active.
        median_frames: length of the median filter, frames.
    """

    def __init__(self, labels: Sequence[str], frame_seconds: float, threshold: float, median_frames: int) -> None:
        self.labels = labels
        self.frame_seconds = frame_seconds
        self.threshold = threshold
        self.median_frames = median_frames
        self.frames_ahead = (median_frames - 1) // 2
        self._kept = np.empty((0, len(labels)), dtype=np.int8)  # activity from frame `_origin` on
        self._origin = 0
        self._next = 0  # the next frame to filter
        self._active = np.zeros((1, len(labels)), dtype=np.int8)  # activity in the frame before it, filtered
        self._onsets = np.zeros(len(labels))

    def push(self, frame: np.ndarray, *, duration: float | None = None) -> list[Event]:
        """Returns the events that end in the next frames `[T', C]`, sorted by offset.

        duration: length of the whole signal in seconds, if it ends with these frames; all events then end there.
        """
        self._kept = np.concatenate([self._kept, frame >= self.threshold], dtype=np.int8)
        end = math.inf if duration is None else duration
        stop = max(self._next, self._origin + len(self._kept) - (self.frames_ahead if duration is None else 0))
        smooth = self._kept[:0]
        if stop > self._next:
            smooth = median_filter(self._kept, size=(self.median_frames, 1), mode="reflect")
            smooth = smooth[self._next - self._origin : stop - self._origin]
        active = np.concatenate([self._active, smooth])
        silence = np.zeros((0 if duration is None else 1, len(self.labels)), dtype=np.int8)
        steps = np.diff(np.concatenate([active, silence]), axis=0)
        events = []
        for row, column in np.argwhere(steps):
            seconds = float((self._next + row) * self.frame_seconds)
            if steps[row, column] > 0:
                self._onsets[column] = seconds
            elif self._onsets[column] < end:
                events.append(Event(float(self._onsets[column]), min(seconds, end), self.labels[column]))
        self._active, self._next = active[-1:], stop
        origin = max(0, stop - self.median_frames // 2)
        self._kept = self._kept[origin - self._origin :]
        self._origin = origin
        return events


class LiveDetector:
    """Detects events in a stream with a bounded delay: the same events as in the whole signal at once.

    Args:
        model: checkpoint of a causal separator or detector, or the module itself, which is run on its device.
        threshold: probability from which on a class is active.
        median_frames: length of the median filter, output frames; default: the detector's own.

    Raises:
        CheckpointError: the checkpoint is missing, broken or of another kind.
        ValueError: the model is not causal, or an option is out of range.
    """

    def __init__(
        self, model: str | os.PathLike[str] | nn.Module, *, threshold: float = 0.5, median_frames: int | None = None
    ) -> None:
        self.model = model if isinstance(model, nn.Module) else open_model(model)
        self.detector = detector_of(self.model)
        self.threshold = threshold
        self.median_frames = median_frames_of(self.detector) if median_frames is None else median_frames
        if self.median_frames < 1:
            raise ValueError(f"median_frames is {median_frames}; it must be 1 (no filter) or more")
        self._start()

    def _start(self) -> None:
        detector = self.detector
        self._frames = FrameStream(self.model)
        self._offset = OffsetFilter(self.sample_rate)
        self._n_samples = 0
        self._events = EventStream(detector.labels, detector.frame_seconds, self.threshold, self.median_frames)

    @property
    def sample_rate(self) -> int:
        """Sample rate that the samples must have, Hz."""
        return self.detector.feature_config.sample_rate

    @property
    def seconds(self) -> float:
        """Length of the stream so far."""
        return self._n_samples / self.sample_rate

    @property
    def delay_seconds(self) -> float:
        """Upper bound of the delay: an event is returned at most this long after its offset, in time of the stream.

        It is the sum of the output frames that the detector and the median filter look ahead, the output frame that
        begins at the offset (less one hop), half a window of the front end, and one sample; but at least the 0.06 s
        that are held back at the start.
        """
        front_end = self.detector.feature_config
        n_frames = (self._frames.lookahead + self._events.frames_ahead + 1) * self._frames.pooling
        own = ((n_frames - 1) * front_end.hop + front_end.n_fft // 2 + 1) / self.sample_rate
        return max(own, FIRST_SECONDS + 1 / self.sample_rate)

    def push(self, samples: np.ndarray | Tensor) -> list[Event]:
        """Takes the next samples `[n]` and returns the events that have become final, sorted by offset.

        Times count from the start of the stream. Floats have full scale 1; integers of 8, 16 and 32 bits are divided by
        the full scale of their type. Raises ValueError if the samples are something else, not [n], not finite, or more
        than 40 dB above full scale; the stream is then as before.
        """
        values = as_float(samples, "the chunk")
        if values.ndim != 1:
            raise ValueError(
                f"the chunk has the shape {list(values.shape)}; expected [n], a single channel: average the channels"
            )
        check_level(values, "the chunk")
        self._n_samples += len(values)
        frame = self._frames.push(self._offset(values))
        return self._events.push(frame) if len(frame) else []

    def flush(self) -> list[Event]:
        """Ends the stream and returns its remaining events; the next `push` begins a new stream."""
        frame = self._frames.push(self._offset(np.empty(0, dtype=np.float32), last=True), last=True)
        events = self._events.push(frame, duration=self.seconds)
        self._start()
        return events
