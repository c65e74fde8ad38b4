"""Corpora and small models that several test files share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from task_aware.data.batches import RealBatch, StrongBatch, TrainingBatch
from task_aware.data.labels import DESED_CLASSES
from task_aware.models.condition import condition_size
from task_aware.models.crnn import CRNN, CRNNConfig
from task_aware.models.features import FeatureConfig
from task_aware.models.separator import ChannelLayerNorm, MaskNetwork, MaskNetworkConfig
from task_aware.models.system import ClassSeparator, Separator
from task_aware.synthesis import builtin_corpus

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
def short_steps() -> list[str]:
    """Options of `train` for as little work a step as can be, where a test asks what comes of a run, not how good."""
    sizes = ("strong=2", "weak=1", "unlabelled=1", "strong_seconds=2", "real_seconds=3")
    return [*(f"--batch.{size}" for size in sizes), "--optimiser.separation_strong=2", "--no-preview"]


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


@pytest.fixture
def class_separator(small_detector: CRNN) -> ClassSeparator:
    """A source for each class, conditioned on what `small_detector` found."""
    torch.manual_seed(1)
    config = MaskNetworkConfig(
        n_mels=32, n_sources=10, bottleneck=8, hidden=8, skip=8, blocks=2, repeats=1,
        conditioning=condition_size(small_detector),
    )  # fmt: skip
    return ClassSeparator(MaskNetwork(config), small_detector, merge="own").eval()


def with_second_slots(separator: ClassSeparator) -> ClassSeparator:
    """The same with two slots for each class, the first of which is the source that it had."""
    sizes = dataclasses.replace(separator.mask_network.config, n_sources=20)
    network, (_, mask) = MaskNetwork(sizes), separator.mask_network.mask
    weights = separator.mask_network.state_dict()
    for name, parameter in (("mask.1.weight", mask.weight), ("mask.1.bias", mask.bias)):
        of_classes = parameter.detach().unflatten(0, (10, 32))
        weights[name] = torch.stack([of_classes, torch.randn_like(of_classes)], 1).flatten(0, 2)
    network.load_state_dict(weights)
    return ClassSeparator(network, separator.detector, merge=separator.merge).eval()


@pytest.fixture
def slotted_separator(class_separator: ClassSeparator) -> ClassSeparator:
    """`class_separator` with a second slot for each class."""
    return with_second_slots(class_separator)


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., TrainingBatch]:
    """Batches for `small_separator`: two mixtures of three events, a weakly labelled clip and two without labels."""

    def make(seed: int = 0, *, seconds: float = 0.5) -> TrainingBatch:
        torch.manual_seed(seed)
        n_samples = round(16000 * seconds)
        rirs = torch.zeros(2, 3, 4)
        rirs[..., 0] = 1
        strong = StrongBatch(
            0.1 * torch.randn(2, 3, n_samples),
            rirs,
            torch.ones(2, 3),
            torch.zeros(2, n_samples),
            torch.tensor([[0, 4, 5]]).expand(2, 3),
            torch.zeros(2, int(seconds * 12.5), 10),
        )
        weak, unlabelled = (RealBatch(0.1 * torch.randn(size, n_samples), torch.eye(10)[:size]) for size in (1, 2))
        return TrainingBatch(strong, weak, unlabelled)

    return make


@pytest.fixture
def causal_detector() -> CRNN:
    """As `small_detector`, but causal, looking two frames ahead, of two GRU layers, and with norms as if trained."""
    torch.manual_seed(2)
    config = CRNNConfig(
        filters=(4, 8, 8),
        pooling=((2, 4), (2, 4), (1, 2)),
        rnn_cells=8,
        initialisation="unit",
        causal=True,
        lookahead=2,
    )
    detector = CRNN(config, DESED_CLASSES, FeatureConfig(n_fft=512, hop=320, n_mels=32, top_db=float("inf")))
    with torch.no_grad():
        detector.mean.normal_(-30.0, 5.0)
        detector.std.uniform_(10.0, 20.0)
        detector.dense.weight.normal_(0.0, 3.0)
        detector.dense.bias.zero_()
        for module in detector.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_()
                module.running_var.uniform_(0.3, 3.0)
                module.weight.normal_(1.0, 0.3)
                module.bias.normal_()
    return detector.eval()


@pytest.fixture
def causal_separator(causal_detector: CRNN) -> Separator:
    """A causal mask network of three sources before `causal_detector`, its norms' weights drawn too."""
    torch.manual_seed(3)
    sizes = MaskNetworkConfig(n_mels=32, n_sources=3, bottleneck=8, hidden=16, skip=8, blocks=3, repeats=2, causal=True)
    network = MaskNetwork(sizes)
    for module in network.modules():
        if isinstance(module, ChannelLayerNorm):
            torch.nn.init.normal_(module.weight, 1.0, 0.3)
            torch.nn.init.normal_(module.bias)
    return Separator(network, causal_detector).eval()


@pytest.fixture
def causal_class_separator(causal_detector: CRNN) -> ClassSeparator:
    """A source for each class before `causal_detector`, conditioned on what it found so far."""
    torch.manual_seed(4)
    sizes = MaskNetworkConfig(
        n_mels=32, n_sources=10, bottleneck=8, hidden=16, skip=8, blocks=3, repeats=2, causal=True,
        conditioning=condition_size(causal_detector),
    )  # fmt: skip
    return ClassSeparator(MaskNetwork(sizes), causal_detector, merge="own_average").eval()


@pytest.fixture
def causal_slotted_separator(causal_class_separator: ClassSeparator) -> ClassSeparator:
    """`causal_class_separator` with a second slot for each class."""
    return with_second_slots(causal_class_separator)
