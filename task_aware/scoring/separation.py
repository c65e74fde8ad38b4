"""Whether a separator has separated, and what its change of event F1 therefore means."""

from __future__ import annotations

from collections.abc import Mapping

from task_aware.scoring.metrics import Scores
from task_aware.scoring.systems import DETECTOR_ONLY, SEPARATED

#: Up to this spread the sources have not separated: one of them holds most of the energy.
SEPARATED_ABOVE = 0.5

#: A detector with an event F1 below this teaches a separator little.
WEAK_DETECTOR = 0.2

#: Up to this gain of SI-SDR in dB the sources of classes have not separated.
SEPARATED_ABOVE_DB = 3.0


def has_separated(separation: Mapping[str, float]) -> bool:
    """Whether the sources have separated, from the numbers of `TaskAwareModule.measure`."""
    if "sdr_gain" in separation:
        return separation["sdr_gain"] >= SEPARATED_ABOVE_DB
    return separation["spread"] > SEPARATED_ABOVE and separation["relative_loss"] < 1


def measured(separation: Mapping[str, float]) -> str:
    """What the numbers say."""
    if "sdr_gain" in separation:
        gain = separation["sdr_gain"]
        side = "above" if gain >= 0 else "below"
        return (
            f"in new mixtures of two or more classes, the SI-SDR of a source is {abs(gain):.1f} dB {side} that of the "
            "mixture."
        )
    return (
        f"in new mixtures, their spread is {separation['spread']:.2f} (separated sources: about 1), and their squared "
        f"error is {separation['relative_loss']:.2f} times that of all events in one source (separated: below 1). "
        "Spread is the energy outside each mixture's loudest source, relative to the truth: 0 means that one source "
        "holds everything, 1 that the sources are as spread out as the true ones, and above 1 that they are variants "
        "of the mixture."
    )


def verdict(results: Mapping[str, Mapping[str, Scores]], separation: Mapping[str, float]) -> str:
    """The closing words of a training: what was measured, what it means, and what to do.

    Args:
        results: scores of the detector alone and with separation, as from `evaluation.score`.
        separation: the numbers of `TaskAwareModule.measure`, on mixtures that training has not seen.
    """
    alone, separated = (results[name]["event"].macro for name in (DETECTOR_ONLY, SEPARATED))
    change = f"The change of event F1 by {round(100 * separated, 1) - round(100 * alone, 1):+.1f} points"
    if has_separated(separation):
        finding = "The sources have separated"
        meaning = (
            f"{change} comes with separated sources: confirm it with more seeds (ablation) and detectors (across)."
        )
    else:
        finding = "The sources have not separated yet"
        meaning = (
            f"{change} is therefore at most the effect of enhancing the mixture and says nothing about separation: "
            "train longer (--max-steps), or give the squared error more weight (--losses.mse)."
        )
    sentences = [f"{finding}: {measured(separation)}", meaning]
    if alone < WEAK_DETECTOR:
        sentences.append(
            f"The detector alone reaches only {100 * alone:.1f} % event F1, too little to teach a separator much: "
            "train it longer (train_sed), or if it is not yours to train, look at its labels and times."
        )
    return " ".join(sentences)
