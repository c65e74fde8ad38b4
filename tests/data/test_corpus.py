"""A corpus opened for some of its classes: the others are noise, or an error."""

import pytest

from task_aware.base.errors import DataError
from task_aware.data.corpus import Corpus
from task_aware.data.mixing_config import MixingConfig


def test_other_classes_are_noise_if_that_is_asked_for(tiny_corpus):
    corpus = Corpus(tiny_corpus, labels=("Speech",), others_are_noise=True)
    everything = Corpus(tiny_corpus)
    for name in ("validation", "weak"):
        mine, all_of = corpus.split(name), everything.split(name)
        assert [clip.path for clip in mine.clips] == [clip.path for clip in all_of.clips]
        for clip, whole in zip(mine.clips, all_of.clips, strict=True):
            assert clip.labels == (None if whole.labels is None else tuple(x for x in whole.labels if x == "Speech"))
            assert clip.events == (
                None if whole.events is None else tuple(e for e in whole.events if e.label == "Speech")
            )
    config = MixingConfig(n_events=(1, 1), reverb=False)
    bank = corpus.mixer(config, n_sources=1, seconds=2.0, seed=0).soundbank
    parts = {path.parts[1] for path in bank.background}
    assert list(bank.foreground) == ["Speech"] and {"ambient", "Dog", "Frying"} <= parts and "Speech" not in parts


def test_other_classes_are_an_error_otherwise(tiny_corpus):
    with pytest.raises(DataError, match="unknown label"):
        Corpus(tiny_corpus, labels=("Speech",)).split("validation")
