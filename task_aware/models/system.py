"""A mask network and a frozen detector as one system: from a mixture's mel-spectrogram to sources and detections."""

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
    """Estimated sources as linear mel and as the detector's scaled log-mel features, both `[B, S, F, T]`."""

    mel: Tensor
    features: Tensor


class SourceDetection(NamedTuple):
    """A detector's output per source: frame `[B, S, T', C]`, clip `[B, S, C]`, activations each `[B * S, ...]`."""

    frame: Tensor
    clip: Tensor
    activations: list[Tensor]


def merge_sources(sources: Tensor, mixture: Tensor, rule: Merge) -> Tensor:
    """Merges the probabilities of the sources into those of the clip.

    Args:
        sources: probabilities of each source, `[B, S, ...]`.
        mixture: the detector's probabilities for the unseparated mixture, `[B, ...]`; used by `average` alone.
        rule: `max` over the sources (best with much overlap), `average` of the mixture and that `max` (best on
            ordinary clips), `noisy_or`, which is `1 - prod(1 - p)`, or `mean` over the sources.
    """
    if rule == "max":
        return sources.amax(1)
    if rule == "average":
        return 0.5 * (mixture + sources.amax(1))
    if rule == "noisy_or":
        return 1 - (1 - sources).prod(1)
    if rule == "mean":
        return sources.mean(1)
    raise ValueError(f"no merging rule is called {rule!r}; choose from max, average, noisy_or, mean")


class Separator(nn.Module):
    """A mask network in front of a frozen detector.

    Args:
        mask_network: maps features `[B, F, T]` to logits `[B, S, F, T]`.
        detector: any detector that follows the protocol; the system freezes it and uses its front end and scaler.
        mask_floor: smallest value f of a mask, `f + (1 - f) sigmoid(logits)`.
        merge: rule by which detections of the sources are merged, see `merge_sources`.
        backend: backend of the operators.
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
        """Computes the detector's features of a mixture: linear mel `[B, F, T]` -> scaled log-mel `[B, F, T]`."""
        return features_of(self.detector, mixture_mel)

    def separate(self, mixture_mel: Tensor, mask_network: MaskNetwork | None = None) -> Separation:
        """Separates linear mel of mixtures `[B, F, T]`; `mask_network` replaces the system's own (for a teacher)."""
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
        """Detects events in the mixture and in each source; also returns merged frame probabilities `[B, T', C]`."""
        alone = self.detector(self.mixture_features(mixture_mel))
        sources = self.detect_sources(self.separate(mixture_mel).features)
        return alone, sources, merge_sources(sources.frame, alone.frame, self.merge)

    def save(self, path: str | os.PathLike[str], **notes: Any) -> None:
        """Writes a checkpoint of the mask network and of the detector if it is a `CRNN`; others are not saved."""
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
        """Opens a checkpoint that `python -m task_aware.train` wrote, in evaluation mode.

        Args:
            path: the file.
            detector: a detector to use instead of the one in the file; required if the file has none.
            backend: backend of the operators.

        Raises:
            CheckpointError: the file is missing, truncated, not a checkpoint of this package, of a newer format or of
                another kind; or the detector's labels or front end differ from those in training.
        """
        tensors, content = checkpoint.read(path, "separator")

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}

        try:
            if detector is None:
                if content["detector"] is None:
                    raise CheckpointError(
                        f"{path} was trained through a custom detector, which it does not contain; name it with "
                        "--detector package.module:factory, or pass it in Python as `detector`"
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
    """Computes frame probabilities `[B, T', C]` from linear mel `[B, F, T]`: a separator's merged or a detector's."""
    if isinstance(model, Separator):
        return model.detect(mel)[2]
    detector = cast(Detector, model)
    return detector(features_of(detector, mel)).frame


def check_detector(detector: Any, labels: list[str], features: FeatureConfig, where: str) -> None:
    """Raises CheckpointError if a detector's labels or front end differ from those that `where` was made with."""
    if list(detector.labels) != list(labels):
        raise CheckpointError(
            f"{where} was made for the labels {list(labels)}, but the detector has {list(detector.labels)}; use the "
            "detector of its training"
        )
    if detector.feature_config != features:
        raise CheckpointError(f"{where} was made for {features}, but the detector uses {detector.feature_config}")
