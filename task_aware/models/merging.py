"""Merging the detections in the sources of a mixture into those of the mixture."""

from __future__ import annotations

import torch
from torch import Tensor

from task_aware.models.options import Merge


def merge_sources(sources: Tensor, mixture: Tensor, rule: Merge, *, plausible: float = 0.0) -> Tensor:
    """Merges the probabilities of the sources into those of the clip.

    Args:
        sources: frame probabilities of each source, `[B, S, T', C]`.
        mixture: the detector's probabilities for the unseparated mixture, `[B, T', C]`.
        rule: `max` over the sources (best with much overlap), `average` of the mixture and that `max` (best on
            ordinary clips), `noisy_or`, which is `1 - prod(1 - p)`, or `mean` over the sources. With S / C sources
            for each class, in the order of the classes: `own`, each class in the own source that has it most, or
            `own_average` of the mixture and that.
        plausible: with `own` and `own_average`, the mixture's probability counts for classes that do not reach this in
            any frame of it.
    """
    if rule == "max":
        return sources.amax(1)
    if rule == "average":
        return 0.5 * (mixture + sources.amax(1))
    if rule == "noisy_or":
        return 1 - (1 - sources).prod(1)
    if rule == "mean":
        return sources.mean(1)
    if rule in ("own", "own_average"):
        own = sources.unflatten(1, (sources.shape[-1], -1)).diagonal(dim1=1, dim2=-1).amax(1)
        own = own if rule == "own" else 0.5 * (mixture + own)
        return own if plausible <= 0 else torch.where(mixture.amax(1, keepdim=True) >= plausible, own, mixture)
    raise ValueError(
        f"no merging rule is called {rule!r}; choose from max, average, noisy_or, mean, own and own_average"
    )


def check_merge(sources: str, rule: Merge) -> None:
    """Raises ValueError if a merging rule does not go with free sources, or with those of classes."""
    if (sources == "classes") != rule.startswith("own"):
        wanted = "own or own_average" if sources == "classes" else "max, average, noisy_or or mean"
        raise ValueError(f"the merging rule is {rule}, but the separator's sources are {sources}; give {wanted}")
