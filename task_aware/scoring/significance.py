"""How sure a difference of event F1 is: a bootstrap over clips, from the counts of each clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Macro F1 of counts (reference, detected, correct) `[..., C, 3]`: `[...]`.

    Of the classes with reference events, as in `metrics.Scores`: the same ones for all systems on the same clips.
    """
    reference, detected, correct = np.moveaxis(counts, -1, 0)
    there = reference > 0
    f1 = there * 2 * correct / np.maximum(reference + detected, 1)
    return f1.sum(-1) / np.maximum(there.sum(-1), 1)


def bootstrap(
    systems: Mapping[str, Sequence[np.ndarray]], *, resamples: int = 1000, seed: int = 0
) -> dict[str, np.ndarray]:
    """Macro F1 of several systems on clips drawn with replacement: each draw is of the same clips for all of them.

    So the difference of two systems, draw by draw, is a paired one.

    Args:
        systems: of each system the counts `[clips, C, 3]` (`metrics.event_counts`) of its runs, all of the same clips.
        resamples: how often clips are drawn.
        seed: of the draws.

    Returns:
        Of each system `[resamples]`, the mean over its runs.
    """
    shapes = {run.shape for runs in systems.values() for run in runs}
    if len(shapes) != 1:
        raise ValueError(f"the counts have the shapes {sorted(shapes)}; give those of the same clips and classes")
    ((n_clips, n_classes, _),) = shapes
    drawn = np.random.default_rng(seed).multinomial(n_clips, np.full(n_clips, 1 / n_clips), size=resamples)
    return {
        name: np.mean([macro_f1((drawn @ run.reshape(n_clips, -1)).reshape(-1, n_classes, 3)) for run in runs], axis=0)
        for name, runs in systems.items()
    }


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of some values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
