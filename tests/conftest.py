"""Corpora and small models that several test files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from task_aware.data.corpus import builtin_corpus
from task_aware.data.labels import DESED_CLASSES
from task_aware.features import FeatureConfig
from task_aware.models.detector import CRNN, CRNNConfig
from task_aware.models.separator import MaskNetwork, MaskNetworkConfig
from task_aware.models.system import Separator

MINIDESED = Path(__file__).parents[1] / "../shared/minidesed"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is decoded is kept with the other files of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TASK_AWARE_CACHE", str(tmp_path_factory.mktemp("decoded")))
        yield


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest size of the built-in corpus."""
    return builtin_corpus(tmp_path_factory.mktemp("cache"), size="tiny", progress=False)


@pytest.fixture(scope="session")
def minidesed() -> Path:
    """A corpus of real recordings; skips where it is not there."""
    if not MINIDESED.is_dir():
        pytest.skip(f"no real recordings in {MINIDESED}")
    return MINIDESED.resolve()


@pytest.fixture
def small_detector() -> CRNN:
    """An untrained detector of a few thousand weights, whose frames nevertheless differ."""
    torch.manual_seed(0)
    config = CRNNConfig(
        filters=(4, 8, 8), pooling=((2, 4), (2, 4), (1, 2)), rnn_cells=8, rnn_layers=1, initialisation="unit"
    )
    detector = CRNN(config, DESED_CLASSES, FeatureConfig(n_fft=512, hop=320, n_mels=32))
    with torch.no_grad():
        detector.mean.fill_(-30.0)
        detector.std.fill_(15.0)
        detector.dense.weight.normal_()
        detector.dense.bias.zero_()
        detector.dense_softmax.weight.normal_()
    return detector.eval()


@pytest.fixture
def small_separator(small_detector: CRNN) -> Separator:
    """A mask network of three sources before `small_detector`, on reference operators."""
    torch.manual_seed(1)
    sizes = MaskNetworkConfig(n_mels=32, n_sources=3, bottleneck=8, hidden=16, skip=8, blocks=2, repeats=1)
    return Separator(MaskNetwork(sizes), small_detector, backend="reference")
