"""A mask network and a frozen detector as one system: from a mixture's mel-spectrogram to sources and detections."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from task_aware import ops
from task_aware.base import checkpoint
from task_aware.base.errors import CheckpointError
from task_aware.models.analysis import Analysis, OwnDetection, Separation, SourceDetection
from task_aware.models.condition import condition_of
from task_aware.models.crnn import CRNN
from task_aware.models.detector import Detection, Detector, features_of, freeze
from task_aware.models.features import FeatureConfig
from task_aware.models.listener import WaveformDetector, heard_by
from task_aware.models.merging import check_merge, merge_sources
from task_aware.models.options import Merge
from task_aware.models.protocol import check_detector
from task_aware.models.separator import MaskNetwork, MaskNetworkConfig


class Separator(nn.Module):
    """A mask network in front of a frozen detector.

    Mixtures are given as linear mel; if the detector is a `WaveformDetector`, as `waveform` too.

    Args:
        mask_network: maps features `[B, F, T]` to logits `[B, S, F, T]`.
        detector: any detector that follows the protocol; the system freezes it and uses its front end and scaler.
        mask_floor: smallest value f of a mask, `f + (1 - f) sigmoid(logits)`.
        merge: rule by which detections of the sources are merged, see `merge_sources`.
        backend: backend of the operators.

    Raises:
        ValueError: the rule does not go with the sources, or the floor is no share.
    """

    #: What the sources are, as a checkpoint has it.
    sources: Literal["free", "classes"] = "free"

    #: The number of sources for each class; None for free ones.
    slots: int | None = None

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
        check_merge(self.sources, merge)
        if not 0 <= mask_floor < 1:
            raise ValueError(f"mask_floor is {mask_floor}; give at least 0 and less than 1")
        self.mask_network = mask_network
        self.detector: Detector = freeze(detector)  # type: ignore[assignment]
        self.mask_floor = mask_floor
        self.merge: Merge = merge
        self.backend: ops.Backend = backend
        mask_network.backend = backend
        if isinstance(detector, CRNN):
            detector.backend = backend

    @property
    def source_labels(self) -> dict[str, str]:
        """The class of each of the S sources of `separate`, by its name; of free sources, their name."""
        return {name: name for name in (f"source_{k + 1}" for k in range(self.mask_network.config.n_sources))}

    @property
    def source_names(self) -> tuple[str, ...]:
        """A name for each of the S sources of `separate`."""
        return tuple(self.source_labels)

    def train(self, mode: bool = True) -> Separator:
        """Sets the mask network's mode; the detector stays in evaluation mode."""
        super().train(mode)
        freeze(self.detector)  # type: ignore[arg-type]
        return self

    def mixture_features(self, mixture_mel: Tensor) -> Tensor:
        """Computes the detector's features of a mixture: linear mel `[B, F, T]` -> scaled log-mel `[B, F, T]`."""
        return features_of(self.detector, mixture_mel)

    def separate(
        self, mixture_mel: Tensor, mask_network: MaskNetwork | None = None, *, waveform: Tensor | None = None
    ) -> Separation:
        """Separates linear mel of mixtures `[B, F, T]`; `mask_network` replaces the system's own (for a teacher)."""
        logits = (mask_network or self.mask_network)(self.mixture_features(mixture_mel))
        return self.masked(mixture_mel, logits, waveform)

    def masked(self, mixture_mel: Tensor, logits: Tensor, waveform: Tensor | None = None) -> Separation:
        """Masks linear mel of mixtures `[B, F, T]` by logits `[B, S, F, T]`."""
        if isinstance(self.detector, WaveformDetector):
            heard = heard_by(self.detector, mixture_mel, waveform)
            floor = self.mask_floor
            return Separation(*self.detector.masked(mixture_mel, heard, logits, floor=floor, backend=self.backend))
        config = self.detector.feature_config
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
        """Runs the detector on every source: features `[B, S, F, T]`, or waveforms `[B, S, N]`."""
        n_sources = features.shape[1]
        detection = self.detector(features.flatten(0, 1))
        frame, clip = (x.unflatten(0, (-1, n_sources)) for x in (detection.frame, detection.clip))
        return SourceDetection(frame, clip, detection.activations)

    @torch.no_grad()
    def analyse(self, mixture_mel: Tensor, waveform: Tensor | None = None) -> Analysis:
        """Separates linear mel of mixtures `[B, F, T]` and detects events in the mixtures and in each source."""
        alone = self.detector(heard_by(self.detector, mixture_mel, waveform))
        separation = self.separate(mixture_mel, waveform=waveform)
        sources = self.detect_sources(separation.features)
        merged = merge_sources(sources.frame, alone.frame, self.merge)
        everything = torch.arange(self.mask_network.config.n_sources, device=mixture_mel.device)
        return Analysis(alone, separation, sources, merged, everything.expand(mixture_mel.shape[0], -1))

    def save(self, path: str | os.PathLike[str], **notes: Any) -> None:
        """Writes a checkpoint of the mask network and of the detector if it is a `CRNN`; others are not saved."""
        detector = self.detector
        own = detector if isinstance(detector, CRNN) else None
        content = {
            "mask_network": asdict(self.mask_network.config),
            "sources": self.sources,
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

        with checkpoint.describing("separator", path):
            if detector is None:
                if content["detector"] is None:
                    raise CheckpointError(
                        f"{path} was trained through a custom detector, which it does not contain; name it with "
                        "--detector package.module:factory, or pass it in Python as `detector`"
                    )
                detector = checkpoint.build(
                    lambda: CRNN.from_description(content["detector"], path), part("detector."), path
                )
            features = checkpoint.config_of(FeatureConfig, content["features"])
            check_detector(detector, content["labels"], features, str(path))
            sizes = checkpoint.config_of(MaskNetworkConfig, content["mask_network"])
            mask_network = checkpoint.build(lambda: MaskNetwork(sizes), part("mask_network."), path)
            kind = ClassSeparator if content.get("sources") == "classes" else Separator
            floor, merge = content["mask_floor"], content["merge"]
            return kind(mask_network, detector, mask_floor=floor, merge=merge, backend=backend).eval()


class ClassSeparator(Separator):
    """A separator with sources for each class of the detector, told what the detector found in the mixture.

    The detector runs on the mixture once. What it found conditions the mask network, which then separates only the
    classes that are asked for. The probability of a class is read from its own source alone, so that false alarms in
    the others do not count. A mask network with several masks for each class, its slots, separates as many sources of
    one class; the probability is then the largest in these. Slots of a class follow one another, in any order.

    The arguments are those of `Separator`; `merge` is `own`, the probability in the own source, or `own_average`, half
    of that and half of the mixture's.

    Raises ValueError as `Separator` does, or if not all classes have as many masks, or names of sources coincide.
    """

    sources = "classes"
    slots: int

    #: A class is plausible in a mixture if its probability reaches this in any frame; with 0 all are.
    plausible: float = 0.5

    #: Whether to separate classes that are not plausible too, so that no shape depends on the mixtures.
    separates_all: bool = False

    def __init__(self, mask_network: MaskNetwork, detector: nn.Module, **options: Any) -> None:
        super().__init__(mask_network, detector, **options)
        masks, classes = mask_network.config.n_sources, len(self.detector.labels)
        if not classes or masks % classes:
            raise ValueError(f"the mask network has {masks} masks for {classes} classes; give as many for each")
        self.slots = masks // classes
        if len(self.source_labels) < masks:
            raise ValueError(f"two of the sources {', '.join(self.source_names)} have one name; rename a class")
        if isinstance(detector, WaveformDetector):
            self.plausible = 0.0  # what it misses in a noise that it never heard, it may find in the source

    @property
    def source_labels(self) -> dict[str, str]:
        """The class of each source of `separate`, by its name: the class itself; of further slots, `Class_2`, ..."""
        slots = range(self.slots)
        return {f"{label}_{slot + 1}" if slot else label: label for label in self.detector.labels for slot in slots}

    def each_slot(self, of_classes: Tensor) -> Tensor:
        """Repeats what there is for each class for its slots: `[B, K]` -> `[B, K * slots]`."""
        return of_classes[:, :, None].expand(-1, -1, self.slots).flatten(1)

    def slots_of(self, asked: Tensor) -> Tensor:
        """The sources of classes `[B, K]`, as indices of `source_names`: int64 `[B, K * slots]`."""
        return (asked[:, :, None] * self.slots + torch.arange(self.slots, device=asked.device)).flatten(1)

    def all_classes(self, mixture_mel: Tensor) -> Tensor:
        """The indices of all C classes, for each mixture: int64 `[B, C]`."""
        return torch.arange(len(self.detector.labels), device=mixture_mel.device).expand(mixture_mel.shape[0], -1)

    def ask(self, scores: Tensor, count: int) -> Tensor:
        """The `count` classes with the highest scores: `[B, C]` -> int64 `[B, count]`."""
        return scores.topk(min(count, scores.shape[1]), dim=1).indices

    def condition(self, mixture_mel: Tensor, waveform: Tensor | None = None) -> tuple[Detection, Tensor]:
        """The detector's answer for mixtures, linear mel `[B, F, T]`, and what of it conditions the mask network."""
        with torch.no_grad():
            alone = self.detector(heard_by(self.detector, mixture_mel, waveform))
            return alone, condition_of(self.detector, alone, mixture_mel.shape[-1])

    def separate_classes(
        self,
        mixture_mel: Tensor,
        condition: Tensor,
        asked: Tensor,
        mask_network: MaskNetwork | None = None,
        *,
        waveform: Tensor | None = None,
    ) -> Separation:
        """The sources `[B, K * slots, F, T]` of the asked classes `[B, K]` in linear mel of mixtures `[B, F, T]`."""
        network = mask_network or self.mask_network
        told = condition if network.config.conditioning else None
        asked_slots = self.slots_of(asked)
        return self.masked(mixture_mel, network(self.mixture_features(mixture_mel), told, asked_slots), waveform)

    def detect_own(self, features: Tensor, asked: Tensor) -> OwnDetection:
        """Runs the detector on the sources `[B, K * slots, F, T]` of the asked classes `[B, K]`."""
        sources = self.detect_sources(features)
        own = self.each_slot(asked)[:, :, None]
        clip = sources.clip.gather(2, own)[..., 0]
        frame = sources.frame.gather(3, own[..., None].expand(-1, -1, sources.frame.shape[2], 1))[..., 0]
        frame, clip = (x.unflatten(1, (-1, self.slots)).amax(2) for x in (frame, clip))
        return OwnDetection(frame, clip, sources)

    def separate(
        self, mixture_mel: Tensor, mask_network: MaskNetwork | None = None, *, waveform: Tensor | None = None
    ) -> Separation:
        """Separates all classes of linear mel of mixtures `[B, F, T]`: `[B, C * slots, F, T]`."""
        _, condition = self.condition(mixture_mel, waveform)
        asked = self.all_classes(mixture_mel)
        return self.separate_classes(mixture_mel, condition, asked, mask_network, waveform=waveform)

    @torch.no_grad()
    def analyse(self, mixture_mel: Tensor, waveform: Tensor | None = None) -> Analysis:
        """Separates the plausible classes of mixtures `[B, F, T]` and detects events in the mixtures and each source.

        Of a class that is not plausible, the mixture's probability counts.
        """
        alone = self.detector(heard_by(self.detector, mixture_mel, waveform))
        asked, plausible = self.asked_of(alone)
        if not asked.shape[1]:
            return self._nothing(mixture_mel, alone, asked)
        condition = condition_of(self.detector, alone, mixture_mel.shape[-1])
        separation = self.separate_classes(mixture_mel, condition, asked, waveform=waveform)
        own = self.detect_own(separation.features, asked)
        columns = asked[:, None].expand(-1, alone.frame.shape[1], -1)
        of_mixture = alone.frame.gather(2, columns)
        of_own = own.frame.transpose(1, 2).to(of_mixture.dtype)
        if self.merge == "own_average":
            of_own = 0.5 * (of_mixture + of_own)
        merged = alone.frame.scatter(2, columns, torch.where(plausible[:, None], of_own, of_mixture))
        masked = separation.mel * self.each_slot(plausible)[:, :, None, None]
        return Analysis(alone, Separation(masked, separation.features), own.sources, merged, self.slots_of(asked))

    def _nothing(self, mixture_mel: Tensor, alone: Detection, asked: Tensor) -> Analysis:
        """The analysis of mixtures in which no class is plausible: no sources, and nothing to hear in them."""
        mel = mixture_mel[:, None][:, :0]
        sources = SourceDetection(alone.frame[:, None][:, :0], alone.clip[:, None][:, :0], [])
        return Analysis(alone, Separation(mel, mel), sources, alone.frame, self.slots_of(asked))

    def asked_of(self, alone: Detection) -> tuple[Tensor, Tensor]:
        """The classes to separate, int64 `[B, K]`, by what was found in the mixtures, and which of them are plausible.

        K is the largest number of plausible classes in a mixture. A causal separator separates all classes, since it
        cannot know which will become plausible.
        """
        everything = self.all_classes(alone.clip)
        if self.mask_network.config.causal:
            return everything, torch.ones_like(everything, dtype=torch.bool)
        scores = alone.frame.amax(1)
        if self.separates_all:
            return everything, scores >= self.plausible
        asked = self.ask(scores, int((scores >= self.plausible).sum(1).max()))
        return asked, scores.gather(1, asked) >= self.plausible


def listen(model: nn.Module, mel: Tensor, waveform: Tensor | None = None) -> Tensor:
    """Computes frame probabilities `[B, T', C]` from linear mel `[B, F, T]`: a separator's merged or a detector's."""
    if isinstance(model, Separator):
        return model.analyse(mel, waveform).merged
    detector = cast(Detector, model)
    return detector(heard_by(detector, mel, waveform)).frame
