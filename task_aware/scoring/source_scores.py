"""CAPI-SDRi and label accuracies of separated and labelled sources, as DCASE 2026 task 4 scores them.

CAPI-SDRi: class-aware permutation-invariant improvement of the signal-to-distortion ratio (arXiv 2604.00776).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from task_aware.ops._assignment import assign

#: The label of a row in which there is nothing. Such rows are left out everywhere.
SILENCE = "silence"

#: Added to both energies of a ratio, as the challenge adds it to its float32 waveforms.
ENERGY_FLOOR = float(np.finfo(np.float32).eps)

Samples = NDArray[np.float64]


def capi_sdri(
    estimates: ArrayLike,
    estimated_labels: Sequence[str],
    references: ArrayLike,
    reference_labels: Sequence[str],
    mixture: ArrayLike,
) -> float | None:
    """Class-aware permutation-invariant SDR improvement of one mixture.

    Within each class, ``min(estimates, references)`` pairs are formed, those of the best mean SDR. A pair scores its
    improvement, ``SDR(estimate, reference) - SDR(mixture, reference)`` with
    ``SDR(x, s) = 10 log10((|s|^2 + f) / (|s - x|^2 + f))`` and ``f = 2**-23``; an estimate or a reference that is left
    over scores 0. The result is the mean of all scores. Of equally good pairings, the first estimates and references
    are paired.

    Args:
        estimates: ``[E,N]``, mono waveforms; arrays, or tensors on the CPU.
        estimated_labels: E labels. Rows labelled ``silence`` are ignored.
        references: ``[R,N]``, what the estimates should be.
        reference_labels: R labels, as of the estimates.
        mixture: ``[N]``, what was separated.

    Returns:
        dB, or None if there are neither references nor estimates: true silence scores nothing.

    Raises:
        ValueError: shapes or labels do not fit, or samples are not finite.
    """
    whole = _samples("mixture", mixture, 1)
    estimated = _by_label("estimate", estimates, estimated_labels, len(whole))
    wanted = _by_label("reference", references, reference_labels, len(whole))
    scores, count = 0.0, 0
    for label in sorted(estimated.keys() | wanted.keys()):
        mine, theirs = estimated.get(label, []), wanted.get(label, [])
        count += max(len(mine), len(theirs))
        scores += sum(
            ratio - _sdr(whole, theirs[reference])
            for reference, ratio in _best_pairs([[_sdr(x, s) for x in mine] for s in theirs])
        )
    return scores / count if count else None


def _best_pairs(ratios: list[list[float]]) -> list[tuple[int, float]]:
    """The paired rows and their ratios, in the pairing of rows and columns with the largest sum."""
    if not ratios or not ratios[0]:
        return []
    rows, columns = len(ratios), len(ratios[0])
    if rows == columns == 1:
        return [(0, ratios[0][0])]
    size = max(rows, columns)
    costs = torch.zeros(1, size, size, dtype=torch.float64)  # who is paired with nobody costs nothing
    costs[0, :rows, :columns] = -torch.tensor(ratios, dtype=torch.float64)
    chosen = assign(costs)[0, :rows].tolist()
    return [(row, ratios[row][column]) for row, column in enumerate(chosen) if column < columns]


def _sdr(estimate: Samples, reference: Samples) -> float:
    """In dB; finite also for silence and for a perfect estimate."""
    error = reference - estimate
    return 10 * math.log10((reference @ reference + ENERGY_FLOOR) / (error @ error + ENERGY_FLOOR))


def _samples(name: str, waveform: ArrayLike, dimensions: int) -> Samples:
    samples = np.asarray(waveform, dtype=np.float64)
    if samples.ndim != dimensions:
        wanted = "[N]" if dimensions == 1 else "one waveform of N samples for each label"
        raise ValueError(f"capi_sdri: {name} has the shape {list(samples.shape)}, expected {wanted}.")
    if not np.isfinite(samples).all():
        raise ValueError(f"capi_sdri: {name} holds samples that are not finite, expected finite ones.")
    return samples


def _by_label(name: str, waveforms: ArrayLike, labels: Sequence[str], length: int) -> dict[str, list[Samples]]:
    """The waveforms of each label but silence, in order."""
    if len(labels) == 0 and np.size(waveforms) == 0:  # type: ignore[arg-type]
        return {}
    rows = _samples(f"{name}s", waveforms, 2)
    if isinstance(labels, str) or len(rows) != len(labels) or rows.shape[1] != length:
        raise ValueError(
            f"capi_sdri: {name}s have the shape {list(rows.shape)} with {len(labels)} labels beside a mixture of "
            f"{length} samples, expected a row of as many samples for each label."
        )
    found: dict[str, list[Samples]] = {}
    for label, row in zip(labels, rows, strict=True):
        if label != SILENCE:
            found.setdefault(label, []).append(row)
    return found


@dataclass(frozen=True)
class LabelAccuracy:
    """How well mixtures were labelled; all rates in [0, 1].

    mixtures: the share of mixtures whose labels are all right, each as often as it should be.
    sources: true positives / (true positives + false positives + false negatives), all mixtures together; None if
        there is nothing in any of them.
    """

    mixtures: float
    sources: float | None
    true_positives: int
    false_positives: int
    false_negatives: int


def label_accuracy(estimated: Iterable[Sequence[str]], references: Iterable[Sequence[str]]) -> LabelAccuracy:
    """Compares the labels of mixtures, as multisets in which ``silence`` does not count.

    Args:
        estimated, references: the labels of each mixture's sources, in one order of the mixtures.

    Raises:
        ValueError: there is no mixture, or a different number of them in the two.
    """
    right, counts = [], np.zeros(3, dtype=int)
    for mine, theirs in zip(list(estimated), list(references), strict=True):
        found, wanted = (Counter(label for label in labels if label != SILENCE) for labels in (mine, theirs))
        right.append(found == wanted)
        counts += [(found & wanted).total(), (found - wanted).total(), (wanted - found).total()]
    if not right:
        raise ValueError("label_accuracy: got no mixtures, expected the labels of one at least.")
    true_positives, false_positives, false_negatives = map(int, counts)
    total = true_positives + false_positives + false_negatives
    return LabelAccuracy(
        sum(right) / len(right),
        true_positives / total if total else None,
        true_positives,
        false_positives,
        false_negatives,
    )


class SourceScores:
    """Collects mixtures: `values` holds the CAPI-SDRi of each in dB, None where it scores nothing."""

    def __init__(self) -> None:
        self.values: list[float | None] = []
        self._labels: list[tuple[list[str], list[str]]] = []

    def add(
        self,
        estimates: ArrayLike,
        estimated_labels: Sequence[str],
        references: ArrayLike,
        reference_labels: Sequence[str],
        mixture: ArrayLike,
    ) -> float | None:
        """Scores one more mixture, as `capi_sdri` does."""
        value = capi_sdri(estimates, estimated_labels, references, reference_labels, mixture)
        self.values.append(value)
        self._labels.append((list(estimated_labels), list(reference_labels)))
        return value

    def mean(self) -> float | None:
        """The CAPI-SDRi of all: the mean over the mixtures that score, None if none does."""
        scored = [value for value in self.values if value is not None]
        return sum(scored) / len(scored) if scored else None

    def labels(self) -> LabelAccuracy:
        """The label accuracies of all mixtures."""
        return label_accuracy(*zip(*self._labels, strict=True)) if self._labels else label_accuracy([], [])
