"""A few cases of each kind; `python tests/fuzz --cases 10000` runs more. And that failures of each sort are seen."""

from __future__ import annotations

import pytest

from .running import FAILURE, KINDS, RESULT, SENTENCE, run


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_given_ends_in_a_result_or_in_one_sentence(kind):
    found = list(run(kind, range(60), limit=120))
    assert [outcome.case for outcome in found] == list(range(60))
    assert {outcome.ended for outcome in found} == {RESULT, SENTENCE}, [
        outcome for outcome in found if outcome.ended == FAILURE
    ]


def test_a_case_that_fails_is_seen_and_the_others_go_on():
    found = list(run("failing", range(6), limit=5))
    assert [outcome.ended for outcome in found] == [RESULT, FAILURE, FAILURE, FAILURE, FAILURE, SENTENCE]
    for outcome, text in zip(found[1:5], ("ended the process", "takes longer", "KeyError", "MemoryError"), strict=True):
        assert text in outcome.text
