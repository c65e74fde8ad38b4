"""CAPI-SDRi and label accuracies: small cases by hand, and the cases that the challenge's own code has scored."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from task_aware.scoring import LabelAccuracy, SourceScores, capi_sdri, label_accuracy

OFFICIAL = Path(__file__).parents[2] / "../shared/metrics/s5"

RNG = np.random.default_rng(0)
A, B, C = RNG.standard_normal((3, 200))
NOISE = RNG.standard_normal((3, 200))
MIXTURE = A + B + C


def sdr(estimate: np.ndarray, reference: np.ndarray) -> float:
    return 10 * math.log10((np.sum(reference**2) + 2.0**-23) / (np.sum((reference - estimate) ** 2) + 2.0**-23))


def gain(estimate: np.ndarray, reference: np.ndarray) -> float:
    return sdr(estimate, reference) - sdr(MIXTURE, reference)


def test_one_source_scores_its_improvement() -> None:
    estimate = A + 0.1 * NOISE[0]
    assert capi_sdri([estimate], ["Dog"], [A], ["Dog"], MIXTURE) == pytest.approx(gain(estimate, A), rel=1e-9)


def test_pairs_are_formed_within_a_class_only() -> None:
    """The estimates are each other's sources, which only within one class may be set right."""
    estimates, references = np.stack([B, A]) + 0.1 * NOISE[:2], np.stack([A, B])
    crossed = (gain(estimates[1], A) + gain(estimates[0], B)) / 2
    straight = (gain(estimates[0], A) + gain(estimates[1], B)) / 2
    assert capi_sdri(estimates, ["Dog", "Dog"], references, ["Dog", "Dog"], MIXTURE) == pytest.approx(crossed)
    assert capi_sdri(estimates, ["Dog", "Bell"], references, ["Dog", "Bell"], MIXTURE) == pytest.approx(straight)


def test_false_alarms_and_misses_score_zero_in_the_mean() -> None:
    estimate, other = A + 0.1 * NOISE[0], 3 * NOISE[1]
    one = gain(estimate, A)
    assert capi_sdri([estimate, B], ["Dog", "Bell"], [A], ["Dog"], MIXTURE) == pytest.approx(one / 2)
    assert capi_sdri([estimate], ["Dog"], [A, B], ["Dog", "Bell"], MIXTURE) == pytest.approx(one / 2)
    # One too many of the class: the better one is paired. One too few: the reference that it fits better.
    assert capi_sdri([other, estimate], ["Dog", "Dog"], [A], ["Dog"], MIXTURE) == pytest.approx(one / 2)
    assert capi_sdri([estimate], ["Dog"], [B, A], ["Dog", "Dog"], MIXTURE) == pytest.approx(one / 2)
    assert capi_sdri([A], ["Dog"], [A], ["Bell"], MIXTURE) == 0


def test_a_pair_is_formed_even_if_it_is_bad() -> None:
    bad = 5 * NOISE[0]
    assert sdr(bad, A) < 0
    assert capi_sdri([bad], ["Dog"], [A], ["Dog"], MIXTURE) == pytest.approx(gain(bad, A))


def test_the_pairing_is_that_of_the_best_sdr_not_of_the_best_improvement() -> None:
    """Of one estimate and two references of different share of the mixture."""
    loud, quiet = A, 0.1 * B
    estimate = 0.5 * loud
    assert sdr(estimate, loud) > sdr(estimate, quiet)
    found = capi_sdri([estimate], ["Dog"], [quiet, loud], ["Dog", "Dog"], loud + quiet)
    assert found == pytest.approx((sdr(estimate, loud) - sdr(loud + quiet, loud)) / 2)


def test_of_equally_good_pairings_the_first_counts() -> None:
    """A silent estimate is as far from one reference as from another; the improvement is not."""
    assert capi_sdri([0 * A], ["Dog"], [A, 0.1 * B], ["Dog", "Dog"], MIXTURE) == pytest.approx(-sdr(MIXTURE, A) / 2)
    assert capi_sdri([0 * A], ["Dog"], [0.1 * B, A], ["Dog", "Dog"], MIXTURE) == pytest.approx(
        -sdr(MIXTURE, 0.1 * B) / 2
    )


def test_true_silence_scores_nothing() -> None:
    assert capi_sdri([], [], [], [], MIXTURE) is None
    assert capi_sdri(np.zeros((0, 200)), [], torch.zeros(1, 200), ["silence"], MIXTURE) is None
    assert capi_sdri([A], ["Dog"], [], [], MIXTURE) == 0
    assert capi_sdri([A, B], ["Dog", "silence"], [A], ["Dog"], MIXTURE) == capi_sdri(
        [A], ["Dog"], [A], ["Dog"], MIXTURE
    )


def test_many_of_a_class() -> None:
    order = np.random.default_rng(1).permutation(40)
    references = np.random.default_rng(2).standard_normal((40, 50))
    mixture, estimates = references.sum(0), 0.9 * references[order]
    wanted = np.mean([sdr(0.9 * s, s) - sdr(mixture, s) for s in references])
    assert capi_sdri(estimates, ["Dog"] * 40, references, ["Dog"] * 40, mixture) == pytest.approx(wanted)


def test_silence_and_perfection_are_finite() -> None:
    value = capi_sdri(torch.zeros(1, 4), ["Dog"], torch.zeros(1, 4), ["Dog"], torch.zeros(4))
    assert value == 0
    assert math.isfinite(capi_sdri([A], ["Dog"], [A], ["Dog"], MIXTURE) or math.nan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixture": np.zeros((1, 200))}, r"mixture has the shape \[1, 200\], expected \[N\]"),
        ({"estimates": A}, r"estimates has the shape \[200\], expected one waveform"),
        (
            {"estimated_labels": []},
            r"estimates have the shape \[1, 200\] with 0 labels beside a mixture of 200 samples",
        ),
        ({"references": np.zeros((1, 10))}, r"references have the shape \[1, 10\] with 1 labels"),
        ({"mixture": np.full(200, np.nan)}, "mixture holds samples that are not finite"),
    ],
)
def test_wrong_arguments(change: dict[str, Any], message: str) -> None:
    arguments = {"estimates": [A], "estimated_labels": ["Dog"], "references": [A], "reference_labels": ["Dog"]}
    with pytest.raises(ValueError, match=message):
        capi_sdri(**arguments | {"mixture": MIXTURE} | change)


def test_label_accuracies_count_labels_as_often_as_they_are_there() -> None:
    estimated = [["Dog"], ["Dog", "Dog"], [], ["silence"], ["Bell", "Dog"]]
    references = [["Dog", "silence"], ["Dog"], [], [], ["Dog", "Bell", "Bell"]]
    assert label_accuracy(estimated, references) == LabelAccuracy(3 / 5, 4 / 6, 4, 1, 1)
    assert label_accuracy([[]], [[]]) == LabelAccuracy(1.0, None, 0, 0, 0)
    with pytest.raises(ValueError, match="got no mixtures"):
        label_accuracy([], [])


def test_collected_mixtures_are_averaged_without_those_that_score_nothing() -> None:
    scores = SourceScores()
    assert scores.mean() is None
    first = scores.add([A + 0.1 * NOISE[0]], ["Dog"], [A], ["Dog"], MIXTURE)
    assert scores.add([], [], [], [], MIXTURE) is None
    assert scores.add([A], ["Dog"], [], [], MIXTURE) == 0
    assert first is not None and scores.values == [first, None, 0.0] and scores.mean() == first / 2
    assert scores.labels() == LabelAccuracy(2 / 3, 1 / 2, 1, 1, 0)


def test_the_challenges_own_code_gives_the_same() -> None:
    if not (OFFICIAL / "capi_sdri.json").is_file():
        pytest.skip(f"no cases scored by the challenge's code in {OFFICIAL}")
    official, scores = json.loads((OFFICIAL / "capi_sdri.json").read_text()), SourceScores()
    with np.load(OFFICIAL / "capi_sdri.npz") as waveforms:
        for k, case in enumerate(official["cases"]):
            estimates, references, mixture = (
                waveforms[f"{name}_{k:02d}"] for name in ("estimate", "reference", "mixture")
            )
            mine, theirs = case["estimated_labels"], case["reference_labels"]
            value = scores.add(estimates, mine, references, theirs, mixture)
            assert value == pytest.approx(case["capi_sdri_db"], abs=1e-4), case["name"]
            labels, wanted = label_accuracy([mine], [theirs]), case["label"]
            assert labels.mixtures == wanted["acc"], case["name"]
            counts = labels.true_positives, labels.false_positives, labels.false_negatives
            assert counts == (wanted["tp"], wanted["fp"], wanted["fn"]), case["name"]
    assert len(scores.values) == 32
    assert scores.mean() == pytest.approx(official["mean"]["mean"], abs=1e-4)
    accuracies = scores.labels()
    assert 100 * accuracies.mixtures == pytest.approx(official["labels"]["accuracy_mix"])
    assert accuracies.sources is not None
    assert 100 * accuracies.sources == pytest.approx(official["labels"]["accuracy_src"])
