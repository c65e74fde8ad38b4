"""Listeners: frozen networks that hear waveforms, behind masks on a mel-spectrogram.

Masks on mel bands become waveforms of the sources (`ops.mask_resynthesis`), which are resampled to the listener's rate.
Gradients flow back all the way from its answer to the masks.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from task_aware import ops
from task_aware.models.detector import Detection, Detector, features_of, median_frames_of
from task_aware.models.features import FeatureConfig
from task_aware.models.options import MEDIAN_FRAMES

#: Longest hop of the masks and length of their window, seconds, if a listener names no front end.
LONGEST_HOP, WINDOW = 0.02, 0.064

#: Roughly how loud the bands of recordings are, dB; the mask network begins with a norm, so that it need not be exact.
MEAN_DB, STD_DB = -40.0, 20.0


@runtime_checkable
class Listener(Protocol):
    """A network that hears waveforms `[B, N]` of any length: an `nn.Module` with these attributes.

    Attributes:
        labels: the C classes, in the order of the outputs; empty if it only embeds.
        sample_rate: sample rate of the waveforms, Hz.
        frame_seconds: seconds between two output frames.

    A listener may also have `feature_config`, the front end of the masks (`masked_front_end` by default), and
    `median_frames`, as a detector.
    """

    labels: tuple[str, ...]
    sample_rate: int
    frame_seconds: float

    def __call__(self, waveform: Tensor) -> Detection: ...


def masked_front_end(listener: Listener) -> FeatureConfig:
    """The front end of the masks before a listener: 64 bands up to 8 kHz, whole frames in each frame of its output.

    It works at 16 kHz, or at the listener's rate if that alone has whole samples in a frame.
    """
    fewest = math.ceil(listener.frame_seconds / LONGEST_HOP - 1e-6)
    for rate, parts in product((FeatureConfig.sample_rate, listener.sample_rate), range(fewest, 2 * fewest + 1)):
        hop = listener.frame_seconds * rate / parts
        if math.isclose(hop, round(hop), rel_tol=1e-6):
            break
    n_fft = 1 << round(math.log2(WINDOW * rate))
    return FeatureConfig(rate, n_fft, round(hop), n_mels=64, f_max=min(FeatureConfig.f_max, rate / 2))


def embedded(activations: list[Tensor], n_frames: int) -> Detection:
    """The answer of a listener without classes: its embeddings, each `[B, ...]`, alone."""
    n_clips = len(activations[0])
    return Detection(activations[0].new_zeros(n_clips, n_frames, 0), activations[0].new_zeros(n_clips, 0), activations)


class WaveformDetector(nn.Module):
    """A listener as a detector, so that a separator is trained through it and heard by it.

    Where other detectors take features `[B, F, T]`, this takes waveforms `[B, N]` at the rate of `feature_config`, the
    front end of the masks. The listener keeps the precision of its weights, even under autocast.

    Args:
        listener: the network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.listener = listener
        self.labels = tuple(listener.labels)
        self.frame_seconds = listener.frame_seconds
        self.median_frames: int = getattr(listener, "median_frames", MEDIAN_FRAMES)
        config: FeatureConfig = getattr(listener, "feature_config", None) or masked_front_end(listener)
        self.feature_config = config
        self.resample = resampler(config.sample_rate, listener.sample_rate)
        self.register_buffer("mean", torch.full((config.n_mels,), MEAN_DB))
        self.register_buffer("std", torch.full((config.n_mels,), STD_DB))

    def forward(self, waveform: Tensor) -> Detection:
        """Hears waveforms `[B, N]` at the rate of `feature_config`."""
        with torch.autocast(waveform.device.type, enabled=False):
            return self.listener(self.resample(waveform))

    def masked(
        self, mixture_mel: Tensor, waveform: Tensor, logits: Tensor, *, floor: float, backend: ops.Backend
    ) -> tuple[Tensor, Tensor]:
        """Masks mixtures: the sources as linear mel `[B, S, F, T]` and as waveforms `[B, S, N]`.

        Args:
            mixture_mel: linear mel, `[B, F, T]`.
            waveform: the same mixtures, `[B, N]`.
            logits: of the masks, `[B, S, F, T]`.
            floor: smallest value of a mask.
            backend: backend of the operator.
        """
        mask = floor + (1 - floor) * torch.sigmoid(logits.to(mixture_mel.dtype))
        return mask * mixture_mel[:, None], self.feature_config.resynthesise(waveform, mask, backend=backend)


class Together(nn.Module):
    """Two detectors that hear at once, as one listener: the answer of the first, and the activations of both.

    The deep feature loss grows with the activations, so that each detector has its own weight in it.

    Args:
        first, second: detectors, each of mel-spectrograms or a `WaveformDetector`, at one sample rate.
        weights: factors of their activations.

    Raises ValueError if their sample rates differ.
    """

    def __init__(self, first: Detector, second: Detector, weights: tuple[float, float] = (1.0, 1.0)) -> None:
        super().__init__()
        rates = [detector.feature_config.sample_rate for detector in (first, second)]
        if rates[0] != rates[1]:
            raise ValueError(f"the detectors hear at {rates[0]} and {rates[1]} Hz; both must hear at one sample rate")
        self.detectors = nn.ModuleList([cast(nn.Module, first), cast(nn.Module, second)])
        self.weights = weights
        self.labels = first.labels
        self.sample_rate = rates[0]
        self.feature_config = first.feature_config
        self.frame_seconds = first.frame_seconds
        self.median_frames = median_frames_of(first)

    def forward(self, waveform: Tensor) -> Detection:
        """Hears waveforms `[B, N]`."""
        answers, activations = [], []
        for module, weight in zip(self.detectors, self.weights, strict=True):
            detector = cast(Detector, module)
            hears_waveforms = isinstance(detector, WaveformDetector)
            answer = detector(
                waveform if hears_waveforms else features_of(detector, detector.feature_config.mel(waveform))
            )
            answers.append(answer)
            activations += [weight * activation for activation in answer.activations]
        return Detection(answers[0].frame, answers[0].clip, activations)


def resampler(from_rate: int, to_rate: int) -> nn.Module:
    """Resamples `[..., N]` by a filter that is computed once, with a gradient; its stop band is below -90 dB."""
    if from_rate == to_rate:
        return nn.Identity()
    from torchaudio.transforms import Resample  # slow to import

    return Resample(
        from_rate,
        to_rate,
        resampling_method="sinc_interp_kaiser",
        lowpass_filter_width=64,
        rolloff=0.9475937167399596,
        beta=14.769656459379492,
    )


def heard_by(detector: Detector, mixture_mel: Tensor, waveform: Tensor | None) -> Tensor:
    """What a detector hears of mixtures.

    Args:
        detector: the detector.
        mixture_mel: linear mel, `[B, F, T]`.
        waveform: the same mixtures, `[B, N]`; only needed by a `WaveformDetector`.

    Raises ValueError if the waveform is missing.
    """
    if not isinstance(detector, WaveformDetector):
        return features_of(detector, mixture_mel)
    if waveform is None:
        raise ValueError("this detector hears waveforms, but was given a mel-spectrogram alone; pass `waveform` too")
    return waveform
