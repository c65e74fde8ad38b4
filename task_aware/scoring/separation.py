"""Whether a separator has separated, and what its scores then allow one to say."""

from __future__ import annotations

from collections.abc import Mapping

from task_aware.scoring.evaluation import DETECTOR_ONLY, SEPARATED
from task_aware.scoring.metrics import Scores

#: Up to this share of the energy that belongs outside of each mixture's loudest slot, the slots have not separated.
SEPARATED_ABOVE = 0.5


#: Below this event F1 a detector teaches a separator little.
WEAK_DETECTOR = 0.2


def has_separated(separation: Mapping[str, float]) -> bool:
    """Whether slots hold sources, rather than one of them the clean sum; given `TaskAwareModule.measure`."""
    return separation["spread"] > SEPARATED_ABOVE and separation["relative_loss"] < 1


def verdict(results: Mapping[str, Mapping[str, Scores]], separation: Mapping[str, float]) -> str:
    """What the table allows one to say, given `TaskAwareModule.measure` on unseen mixtures."""
    alone, separated = (results[name]["event"].macro for name in (DETECTOR_ONLY, SEPARATED))
    sentences = []
    if alone < WEAK_DETECTOR:
        sentences.append(
            f"The detector alone reaches {100 * alone:.1f} % event F1: too weak to teach a separator much; "
            "train it longer (train_sed)."
        )
    change = f"Event F1 changes by {100 * (separated - alone):+.1f} points"
    spread = 100 * separation["spread"]
    share = f"of the energy that belongs outside of each mixture's loudest source, {spread:.0f} % is there"
    if has_separated(separation):
        sentences.append(f"The sources have separated ({share}). {change}.")
    else:
        sentences.append(
            f"The sources have not separated yet ({share}; the loss is {separation['relative_loss']:.2f} times that of "
            f"the clean sum in one source). {change}, but that is at most the work of an enhancer and "
            "says nothing of separation: train longer (--max-steps), or with more weight on losses.mse."
        )
    return " ".join(sentences)
