"""Confidence intervals of event F1 and of its differences: a bootstrap over clips, from the counts of each clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Macro F1 `[...]` from counts of (reference, detected, correct) events, `[..., C, 3]`.

    Averages over the classes with reference events, as `metrics.Scores` does.
    """
    reference, detected, correct = np.moveaxis(counts, -1, 0)
    there = reference > 0
    f1 = there * 2 * correct / np.maximum(reference + detected, 1)
    return f1.sum(-1) / np.maximum(there.sum(-1), 1)


def bootstrap(
    systems: Mapping[str, Sequence[np.ndarray]], *, resamples: int = 1000, seed: int = 0
) -> dict[str, np.ndarray]:
    """Macro F1 of several systems on clips drawn with replacement.

    Each draw has the same clips for all systems, so that their differences are paired.

    Args:
        systems: for each system, the counts `[clips, C, 3]` of its runs (`metrics.event_counts`) on the same clips.
        resamples: number of draws.
        seed: random seed of the draws.

    Returns:
        For each system the F1 of each draw, `[resamples]`, as the mean over its runs.
    """
    shapes = {run.shape for runs in systems.values() for run in runs}
    if len(shapes) != 1:
        raise ValueError(
            f"the counts have the shapes {sorted(shapes)}; give counts of the same clips and classes for all systems"
        )
    ((n_clips, n_classes, _),) = shapes
    drawn = np.random.default_rng(seed).multinomial(n_clips, np.full(n_clips, 1 / n_clips), size=resamples)
    return {
        name: np.mean([macro_f1((drawn @ run.reshape(n_clips, -1)).reshape(-1, n_classes, 3)) for run in runs], axis=0)
        for name, runs in systems.items()
    }


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The bounds of the middle `level` of the values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
