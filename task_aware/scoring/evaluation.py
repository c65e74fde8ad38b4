"""Runs models on the clips of a split, and scores what they detect against the labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from task_aware import ops
from task_aware.base.errors import RecordingError
from task_aware.data.desed import Clip, Split
from task_aware.data.labels import Event
from task_aware.data.offset import remove_offset
from task_aware.data.samples import check_level
from task_aware.models.copies import listening_copy
from task_aware.models.decoding import decode
from task_aware.models.denoiser import DenoisedDetector
from task_aware.models.detector import Detector, median_frames_of
from task_aware.models.features import FeatureConfig
from task_aware.models.opening import detector_of
from task_aware.models.system import Separator, listen
from task_aware.scoring.metrics import Scores, event_f1, segment_f1
from task_aware.scoring.psds import SCENARIOS, psds, why_no_psds
from task_aware.scoring.systems import DETECTOR_ONLY, SEPARATED, SOURCE_ONLY

#: Detected events: system -> filename -> events.
Detections = dict[str, dict[str, list[Event]]]


def _readable(
    clips: Sequence[Clip], front_end: FeatureConfig, unusable: dict[str, str] | None
) -> Iterator[tuple[Clip, np.ndarray]]:
    for clip in clips:
        try:
            samples = clip.read(front_end.sample_rate)
            check_level(samples, str(clip.path))
            if len(samples) <= front_end.n_fft // 2:
                raise RecordingError(
                    f"{clip.path} has {len(samples)} samples; clips must be longer than half a window of "
                    f"{front_end.n_fft} samples"
                )
        except RecordingError as error:
            if unusable is None:
                raise
            unusable[clip.filename] = str(error)
        else:
            yield clip, remove_offset(samples, front_end.sample_rate)


def _batches(recordings: Iterable[tuple[Clip, np.ndarray]], size: int) -> Iterator[list[tuple[Clip, np.ndarray]]]:
    """Batches of at most `size` consecutive clips of one length, so that no clip needs padding."""
    for _, same_length in groupby(recordings, key=lambda item: len(item[1])):
        batch: list[tuple[Clip, np.ndarray]] = []
        for item in same_length:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch


def batches_of(
    split: Split,
    front_end: FeatureConfig,
    *,
    device: torch.device,
    batch_size: int = 8,
    progress: bool = True,
    unusable: dict[str, str] | None = None,
) -> Iterator[tuple[list[Clip], Tensor]]:
    """Yields the clips of a split in batches of one length, with their waveforms `[B, N]` on the device.

    Raises RecordingError for a clip that cannot be read, or is too short or far beyond full scale. If the dictionary
    `unusable` is given, it gets the reason by filename instead, and the clip is left out.
    """
    with tqdm(total=len(split.clips), desc=f"detecting in {split.name}", unit="clip", disable=not progress) as bar:
        for batch in _batches(_readable(split.clips, front_end, unusable), batch_size):
            waveform = torch.from_numpy(np.stack([samples for _, samples in batch])).to(device)
            yield [clip for clip, _ in batch], waveform
            bar.update(len(batch))


@dataclass(frozen=True)
class Heard:
    """The detections in a clip: its length in seconds, and frame probabilities `[T', C]` by system."""

    filename: str
    seconds: float
    frames: dict[str, np.ndarray]


@torch.no_grad()
def hear_split(
    model: nn.Module,
    split: Split,
    *,
    device: torch.device,
    backend: ops.Backend = "auto",
    batch_size: int = 8,
    progress: bool = True,
    unusable: dict[str, str] | None = None,
) -> Iterator[Heard]:
    """Runs a model on every clip of a split.

    Args:
        model: a detector, a `Separator` or a `DenoisedDetector`; its mode and device stay as they are.
        split: the clips.
        device: where to compute.
        backend: backend of the operators.
        batch_size: clips per batch.
        progress: whether to show a progress bar.
        unusable: if given, gets the reason for each clip that cannot be used, which is left out instead of raising.

    Yields:
        The frame probabilities of each clip by system: `detector_only`; for a separator also `separated`; for a
        denoiser also `separated` (the average for mixture and foreground) and `source_only` (the foreground).
    """
    model = listening_copy(model, device)
    detector = detector_of(model)
    front_end = detector.feature_config
    batches = batches_of(split, front_end, device=device, batch_size=batch_size, progress=progress, unusable=unusable)
    for clips, waveform in batches:
        frames = frame_probabilities(model, waveform, backend)
        arrays = {name: probabilities.float().cpu().numpy() for name, probabilities in frames.items()}
        for index, clip in enumerate(clips):
            own = {name: array[index] for name, array in arrays.items()}
            yield Heard(clip.filename, waveform.shape[1] / front_end.sample_rate, own)


def events_of(frame: np.ndarray, detector: Detector, seconds: float) -> list[Event]:
    """Decodes the frame probabilities `[T', C]` of a clip into events, with the detector's own median filter."""
    return decode(
        frame,
        detector.labels,
        detector.frame_seconds,
        median_frames=median_frames_of(detector),
        duration=seconds,
    )


def decode_all(heard: Iterable[Heard], detector: Detector) -> Detections:
    """Decodes the detections in all clips into events: system -> filename -> events."""
    detections: Detections = {}
    for clip in heard:
        for name, frame in clip.frames.items():
            detections.setdefault(name, {})[clip.filename] = events_of(frame, detector, clip.seconds)
    return detections


def detect_split(
    model: nn.Module,
    split: Split,
    *,
    device: torch.device,
    backend: ops.Backend = "auto",
    batch_size: int = 8,
    progress: bool = True,
) -> Detections:
    """Detects the events of every clip of a split; the arguments are those of `hear_split`."""
    heard = hear_split(model, split, device=device, backend=backend, batch_size=batch_size, progress=progress)
    return decode_all(heard, detector_of(model))


def score_psds(
    split: Split, heard: Sequence[Heard], detector: Detector
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Computes `psds1` and `psds2` of each system; what fails is left out and described in the list."""
    if missing := why_no_psds():
        return {}, [missing]
    seconds = {clip.filename: clip.seconds for clip in heard}
    found: dict[str, dict[str, float]] = {}
    reasons: dict[str, None] = {}  # once each, in order
    for name in heard[0].frames:
        found[name] = {}
        for scenario in SCENARIOS:
            try:
                found[name] |= psds(
                    split.reference,
                    {clip.filename: clip.frames[name] for clip in heard},
                    seconds,
                    detector.labels,
                    detector.frame_seconds,
                    median_frames=median_frames_of(detector),
                    scenarios=(scenario,),
                )
            except ValueError as error:
                reasons[f"PSDS is left out: {error}"] = None
            except Exception as error:  # an assertion or accident in sed_scores_eval must not cost the other scores
                reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                reasons[f"{scenario} of {name} is left out: sed_scores_eval fails ({reason})"] = None
    return found, list(reasons)


def frame_probabilities(model: nn.Module, waveform: Tensor, backend: ops.Backend) -> dict[str, Tensor]:
    """Runs each system in `model` on waveforms `[B, N]`: system -> frame probabilities `[B, T', C]`."""
    if isinstance(model, DenoisedDetector):
        late = model.detect(waveform)
        return {DETECTOR_ONLY: late.mixture, SOURCE_ONLY: late.foreground, SEPARATED: late.average}
    mel = detector_of(model).feature_config.mel(waveform, backend=backend)
    if isinstance(model, Separator):
        analysis = model.analyse(mel, waveform)
        return {DETECTOR_ONLY: analysis.alone.frame, SEPARATED: analysis.merged}
    return {DETECTOR_ONLY: listen(model, mel, waveform)}


def score(split: Split, detections: Detections, labels: Sequence[str]) -> dict[str, dict[str, Scores]]:
    """Computes event- and segment-based scores: system -> {"event", "segment"} -> scores."""
    reference = split.reference
    return {
        name: {"event": event_f1(reference, events, labels), "segment": segment_f1(reference, events, labels)}
        for name, events in detections.items()
    }
