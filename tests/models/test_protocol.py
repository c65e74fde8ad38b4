"""Detectors of one's own: the examples train a separator, and what does not follow the protocol is named."""

import copy
import json
import pickle
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from data.recordings import burst, write
from torch import nn

from task_aware import Predictor, evaluate, export, infer, plot, train
from task_aware.base.errors import CheckpointError
from task_aware.data.batches import StrongBatch, TrainingBatch
from task_aware.models.detector import Detection
from task_aware.models.opening import import_detector, open_model
from task_aware.models.protocol import check_protocol, output_frames
from task_aware.models.separator import MaskNetwork, MaskNetworkConfig
from task_aware.models.system import Separator
from task_aware.training.config import LossConfig, OptimiserConfig
from task_aware.training.separator import TaskAwareModule

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def examples_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    yield
    for name in ("own_detector", "clip_tagger"):
        sys.modules.pop(name, None)


def whole_clip_tagger() -> nn.Module:
    import clip_tagger

    sliding = clip_tagger.make()
    whole = clip_tagger.SlidingTagger(sliding.tagger, sliding.labels, sliding.feature_config, window_seconds=None)
    check_protocol(whole, "the tagger of whole clips")
    return whole


def example(name: str) -> nn.Module:
    torch.manual_seed(0)
    return whole_clip_tagger() if name == "whole" else import_detector(name)


def strong_batch(detector, n_samples: int = 32000) -> StrongBatch:
    """Two mixtures of a low and a high noise burst."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 2, n_samples + 8, generator=generator) * 0.1
    low = noise[:, :1].unfold(-1, 9, 1).mean(-1)
    sources = torch.cat([3 * low, noise[:, 1:].diff(n=8) / 50], dim=1)
    sources[:, 0, n_samples // 2 :] = 0
    frames = torch.zeros(2, output_frames(detector, n_samples), len(detector.labels))
    frames[:, : frames.shape[1] // 2, 0] = 1
    frames[:, :, 5] = 1
    labels = torch.tensor([[0, 5]]).expand(2, 2)
    return StrongBatch(sources, torch.ones(2, 2, 1), torch.ones(2, 2), torch.zeros(2, n_samples), labels, frames)


@pytest.mark.parametrize("name", ["own_detector:make", "clip_tagger:make", "whole"])
def test_a_separator_learns_through_the_examples(name):
    detector = example(name)
    before = copy.deepcopy(detector.state_dict())
    sizes = MaskNetworkConfig(n_sources=2, bottleneck=16, hidden=16, skip=16, blocks=2, repeats=1)
    system = Separator(MaskNetwork(sizes), detector).train()
    losses = LossConfig(mse=0.0, frame=1.0, deep_feature=1.0)  # through the detector alone
    module = TaskAwareModule(system, losses, OptimiserConfig(separation_share=0.0, anchor_share=0.0))
    module.log = module.log_dict = lambda *_, **__: None  # no trainer here
    batch = TrainingBatch(strong_batch(detector), None, None)
    optimiser = torch.optim.Adam(system.mask_network.parameters(), 3e-3)
    values = []
    for _ in range(6):
        optimiser.zero_grad()
        loss = module.training_step(batch, 0)
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < values[0]
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


def test_the_sliding_tagger_hears_what_is_in_its_window():
    detector = example("clip_tagger:make").eval()
    features = torch.randn(1, 128, 640, generator=torch.Generator().manual_seed(0))
    changed = features.clone()
    changed[..., 320:] += 1
    apart = (detector(changed).frame - detector(features).frame).abs().amax(-1)[0] > 1e-6
    first = int(apart.nonzero()[0])
    assert (first + 1) * 16 <= 320 < first * 16 + detector.window  # sooner than the change, within a window
    assert apart[first:].all() and not apart[:first].any()


def test_train_takes_a_detector_by_its_import_path(tiny_corpus, tmp_path):
    small = ["--max-steps=1", "--batch.strong=1", "--batch.strong_seconds=1", "--accelerator=cpu"]
    train.main(["--detector=own_detector:make", f"--data={tiny_corpus}", f"--out={tmp_path}", *small])
    assert 0 <= json.loads((tmp_path / "metrics.json").read_text())["separated"]["event_f1_macro"] <= 1
    detector = import_detector("own_detector:make")
    assert Separator.from_checkpoint(tmp_path / "separator.safetensors", detector).detector is detector


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A separator without a detector, as training through one of the examples leaves it."""
    sizes = MaskNetworkConfig(n_sources=2, bottleneck=16, hidden=16, skip=16, blocks=2, repeats=1)
    Separator(MaskNetwork(sizes), example("own_detector:make")).save(tmp_path / "separator.safetensors")
    return tmp_path / "separator.safetensors"


@pytest.fixture
def seeded(monkeypatch) -> str:
    """The example's factory, whose random weights are now always the same."""
    import own_detector

    make = own_detector.make
    monkeypatch.setattr(own_detector, "make", lambda: [torch.manual_seed(0), make()][1])
    return "own_detector:make"


def test_the_commands_take_the_detector_beside_the_checkpoint(checkpoint, seeded, tiny_corpus, tmp_path):
    option, recording = f"--detector={seeded}", write(tmp_path / "a.wav", burst(3.0))
    infer.main([str(checkpoint), str(recording), option, f"--out={tmp_path}", "--scores", "--threshold=0.4"])
    found = np.loadtxt(tmp_path / "scores" / "a.tsv", skiprows=1)[:, 2:]
    expected = Predictor(Separator.from_checkpoint(checkpoint, import_detector(seeded)))
    np.testing.assert_allclose(found, expected.analyse_waveform(burst(3.0), 16000).scores, atol=1e-3)

    evaluate.main([str(checkpoint), option, f"--data={tiny_corpus}", "--accelerator=cpu"])
    metrics = json.loads((tmp_path / "evaluation-validation" / "metrics.json").read_text())
    assert {"detector_only", "separated"} <= set(metrics)

    plot.main([str(checkpoint), str(recording), option, f"--out={tmp_path / 'a.png'}"])
    assert (tmp_path / "a.png").stat().st_size > 0


@pytest.mark.parametrize("command", [infer, evaluate, plot, export])
def test_without_a_detector_the_commands_say_how_to_give_it(command, checkpoint, tmp_path):
    inputs = [str(write(tmp_path / "a.wav", burst(1.0)))] if command in (infer, plot) else []
    with pytest.raises(CheckpointError, match="trained through a custom detector, .* name it with --detector"):
        command.main([str(checkpoint), *inputs, f"--out={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_a_predictor_with_a_detector_of_one_s_own_pickles(checkpoint, seeded):
    predictor = Predictor(checkpoint, detector=seeded, device="cpu")
    answers = [
        each.analyse_waveform(burst(2.0), 16000).scores for each in (predictor, pickle.loads(pickle.dumps(predictor)))
    ]
    np.testing.assert_array_equal(*answers)
    with pytest.raises(ValueError, match="pass a module that contains its detector"):
        Predictor(predictor.model, detector=seeded)


def test_another_detector_behind_a_separator_that_holds_one(small_separator, tmp_path):
    small_separator.save(tmp_path / "separator.safetensors")
    other = copy.deepcopy(small_separator.detector)
    nn.init.zeros_(other.dense.weight)
    other.save(tmp_path / "other.safetensors")
    model = open_model(tmp_path / "separator.safetensors", tmp_path / "other.safetensors")
    assert not model.detector.dense.weight.any()
    with pytest.raises(CheckpointError, match="holds a detector, but only a separator can use another"):
        open_model(tmp_path / "other.safetensors", tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="was made for FeatureConfig"):
        open_model(tmp_path / "separator.safetensors", "own_detector:make")


@pytest.mark.parametrize("name", ["no_such_package:make", "own_detector:no_such_function", "own_detector:"])
def test_a_detector_that_is_not_there(name):
    with pytest.raises(ValueError, match=r"there is no detector .* name a checkpoint, .* as package.module:factory"):
        import_detector(name)


def change(attribute: str, value, detector: nn.Module) -> None:
    setattr(detector, attribute, value)


def unregister(detector: nn.Module) -> None:
    mean = detector.mean
    del detector.mean
    detector.mean = mean


def answer(edit, detector: nn.Module) -> None:
    forward = detector.forward
    detector.forward = lambda features: edit(forward(features))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda d: [delattr(d, name) for name in ("labels", "std")], "lacks labels, std; see docs/detectors.md"),
        (partial(change, "feature_config", {}), "feature_config is a dict"),
        (partial(change, "labels", ("Cat", "Cat")), "a tuple of unique class names"),
        (unregister, "set it with register_buffer"),
        (partial(change, "mean", torch.zeros(64)), r"mean has the shape \[64\]; expected \[128\]"),
        (partial(change, "std", torch.zeros(128)), "std must be above 0"),
        (partial(change, "labels", ("Cat", "Dog")), r"expected \[2, 157, 2\]"),
        (partial(change, "frame_seconds", 0.02), r"\[2, 157, 10\] for .* with 10 labels and frame_seconds=0.02"),
        (partial(change, "frame_seconds", 0.0637), "must be a whole multiple"),
        (partial(answer, tuple), "returns a tuple"),
        (partial(answer, lambda x: x._replace(clip=x.frame)), r"clip has the shape \[2, 157, 10\]"),
        (partial(answer, lambda x: x._replace(frame=10 * x.frame)), r"frame holds values outside \[0, 1\]"),
        (partial(answer, lambda x: x._replace(activations=[])), "a list of at least one tensor"),
        (partial(answer, lambda x: Detection(x.frame.detach(), *x[1:])), "no gradient flows"),
    ],
)
def test_a_mistake_in_a_detector_is_named(spoil, sentence):
    detector = example("own_detector:make")
    spoil(detector)
    with pytest.raises(ValueError, match=sentence):
        check_protocol(detector, "own_detector:make")


def test_a_factory_that_makes_no_module():
    with pytest.raises(ValueError, match=r"returns a dict; a detector must be a torch.nn.Module"):
        import_detector("builtins:dict")
