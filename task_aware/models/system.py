"""Mask network and frozen detector as one system: from a mixture's mel-spectrogram to sources and detections."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from task_aware import ops
from task_aware.base import checkpoint
from task_aware.base.errors import CheckpointError
from task_aware.models.crnn import CRNN
from task_aware.models.detector import Detection, Detector, features_of, freeze
from task_aware.models.features import FeatureConfig
from task_aware.models.separator import MaskNetwork, MaskNetworkConfig

Merge = Literal["max", "average", "noisy_or", "mean"]


class Separation(NamedTuple):
    """Estimated sources: linear mel and the detector's scaled log-mel features, both `[B, S, F, T]`."""

    mel: Tensor
    features: Tensor


class SourceDetection(NamedTuple):
    """A detector's answer per source: frame `[B, S, T', C]`, clip `[B, S, C]`, activations each `[B * S, ...]`."""

    frame: Tensor
    clip: Tensor
    activations: list[Tensor]


def merge_sources(sources: Tensor, mixture: Tensor, rule: Merge) -> Tensor:
    """Merges probabilities of the sources into one of the clip.

    Args:
        sources: probabilities of each source, `[B, S, ...]`.
        mixture: the detector's probabilities of the unseparated mixture, `[B, ...]` (used by `average` alone).
        rule: `max` over sources (best under heavy overlap), `average` = half mixture, half `max` (best on ordinary
            clips), `noisy_or` = `1 - prod(1 - p)`, or `mean` over sources.
    """
    if rule == "max":
        return sources.amax(1)
    if rule == "average":
        return 0.5 * (mixture + sources.amax(1))
    if rule == "noisy_or":
        return 1 - (1 - sources).prod(1)
    if rule == "mean":
        return sources.mean(1)
    raise ValueError(f"no merging rule is called {rule!r}; there are max, average, noisy_or, mean")


class Separator(nn.Module):
    """A mask network before a frozen detector.

    Args:
        mask_network: features `[B, F, T]` -> logits `[B, S, F, T]`.
        detector: any frozen detector of the protocol; its front end and scaler are the system's.
        mask_floor: least value f of a mask, `f + (1 - f) sigmoid(logits)`.
        merge: how detections of the sources become those of the clip.
        backend: of the operators.
    """

    def __init__(
        self,
        mask_network: MaskNetwork,
        detector: nn.Module,
        *,
        mask_floor: float = 0.02,
        merge: Merge = "average",
        backend: ops.Backend = "auto",
    ) -> None:
        super().__init__()
        self.mask_network = mask_network
        self.detector: Detector = freeze(detector)  # type: ignore[assignment]
        self.mask_floor = mask_floor
        self.merge: Merge = merge
        self.backend: ops.Backend = backend
        mask_network.backend = backend
        if isinstance(detector, CRNN):
            detector.backend = backend

    def train(self, mode: bool = True) -> Separator:
        """Sets the mask network's mode; the detector stays in evaluation mode."""
        super().train(mode)
        freeze(self.detector)  # type: ignore[arg-type]
        return self

    def mixture_features(self, mixture_mel: Tensor) -> Tensor:
        """What the detector reads of a mixture: linear mel `[B, F, T]` -> scaled log-mel `[B, F, T]`."""
        return features_of(self.detector, mixture_mel)

    def separate(self, mixture_mel: Tensor, mask_network: MaskNetwork | None = None) -> Separation:
        """Linear mel of mixtures `[B, F, T]` -> sources; `mask_network` stands in for the system's (a teacher)."""
        config = self.detector.feature_config
        logits = (mask_network or self.mask_network)(self.mixture_features(mixture_mel))
        masked = ops.mel_mask(
            logits,
            mixture_mel,
            self.detector.mean,
            self.detector.std,
            floor=self.mask_floor,
            amin=config.amin,
            top_db=config.top_db,
            backend=self.backend,
        )
        return Separation(*masked)

    def detect_sources(self, features: Tensor) -> SourceDetection:
        """Runs the detector on every source: features `[B, S, F, T]`."""
        n_sources = features.shape[1]
        detection = self.detector(features.flatten(0, 1))
        frame, clip = (x.unflatten(0, (-1, n_sources)) for x in (detection.frame, detection.clip))
        return SourceDetection(frame, clip, detection.activations)

    @torch.no_grad()
    def detect(self, mixture_mel: Tensor) -> tuple[Detection, SourceDetection, Tensor]:
        """Detections of the mixture alone, of each source, and the merged frame probabilities `[B, T', C]`."""
        alone = self.detector(self.mixture_features(mixture_mel))
        sources = self.detect_sources(self.separate(mixture_mel).features)
        return alone, sources, merge_sources(sources.frame, alone.frame, self.merge)

    def save(self, path: str | os.PathLike[str], **notes: Any) -> None:
        """Writes the mask network, and the detector with it if that is the CRNN (others stay their owner's)."""
        detector = self.detector
        own = detector if isinstance(detector, CRNN) else None
        content = {
            "mask_network": asdict(self.mask_network.config),
            "mask_floor": self.mask_floor,
            "merge": self.merge,
            "labels": list(detector.labels),
            "features": asdict(detector.feature_config),
            "detector": own.describe() if own else None,
            "notes": notes,
        }
        tensors = {f"mask_network.{name}": x for name, x in self.mask_network.state_dict().items()}
        if own:
            tensors |= {f"detector.{name}": x for name, x in own.state_dict().items()}
        checkpoint.write(path, "separator", tensors, content)

    @classmethod
    def from_checkpoint(
        cls, path: str | os.PathLike[str], detector: nn.Module | None = None, *, backend: ops.Backend = "auto"
    ) -> Separator:
        """Opens what `python -m task_aware.train` wrote, in evaluation mode.

        Args:
            path: the file.
            detector: a detector of the protocol in place of the one in the file; needed where the file has none.
            backend: of the operators.

        Raises:
            CheckpointError: the file is missing, cut off, foreign, of a newer format or of another kind; or the
                detector's labels or front end are not those of training.
        """
        tensors, content = checkpoint.read(path, "separator")

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}

        try:
            if detector is None:
                if content["detector"] is None:
                    raise CheckpointError(
                        f"{path} was trained through a detector of yours, which it does not hold; give it with "
                        "--detector package.module:factory, or in Python as `detector`"
                    )
                detector = CRNN.from_description(content["detector"], path)
                checkpoint.load_weights(detector, part("detector."), path)
            check_detector(detector, content["labels"], FeatureConfig(**content["features"]), str(path))
            mask_network = MaskNetwork(MaskNetworkConfig(**content["mask_network"]))
            checkpoint.load_weights(mask_network, part("mask_network."), path)
            floor, merge = content["mask_floor"], content["merge"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"the description of the separator in {path} is incomplete ({error})") from error
        return cls(mask_network, detector, mask_floor=floor, merge=merge, backend=backend).eval()


def listen(model: nn.Module, mel: Tensor) -> Tensor:
    """Frame probabilities `[B, T', C]` of linear mel `[B, F, T]`: a separator's merged ones, or a detector's."""
    if isinstance(model, Separator):
        return model.detect(mel)[2]
    detector = cast(Detector, model)
    return detector(features_of(detector, mel)).frame


def check_detector(detector: Any, labels: list[str], features: FeatureConfig, where: str) -> None:
    """Raises CheckpointError where a detector's labels or front end are not those that `where` was made with."""
    if list(detector.labels) != list(labels):
        raise CheckpointError(
            f"{where} was made for the labels {list(labels)}, the detector has {list(detector.labels)}; use its own"
        )
    if detector.feature_config != features:
        raise CheckpointError(f"{where} was made for {features}, the detector reads {detector.feature_config}")
