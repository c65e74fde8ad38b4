"""Sources of classes: only what is asked for is separated, and each class is read from its own source."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from task_aware import Predictor
from task_aware.models.condition import CLIPPED_LOGIT, condition_of, condition_size
from task_aware.models.detector import Detection
from task_aware.models.merging import merge_sources
from task_aware.models.separator import MaskNetwork, MaskNetworkConfig
from task_aware.models.system import ClassSeparator, Separator
from task_aware.plots.separation import worth_showing


@pytest.fixture
def mel() -> torch.Tensor:
    torch.manual_seed(2)
    return torch.rand(3, 32, 48)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_asked_masks_are_those_among_all(class_separator, mel, backend):
    network = class_separator.mask_network
    network.backend = backend
    features = class_separator.mixture_features(mel)
    condition = torch.randn(3, network.config.conditioning, 48)
    everything = network(features, condition)
    asked = torch.tensor([[3, 0], [9, 9], [1, 2]])
    some = network(features, condition, asked)
    wanted = torch.stack([everything[b, row] for b, row in enumerate(asked)])
    torch.testing.assert_close(some, wanted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(everything, network(features, condition + 1))


def test_the_condition_is_what_the_detector_found(small_detector, mel):
    features = torch.randn(2, 32, 48)
    detection = small_detector(features)
    condition = condition_of(small_detector, detection, 48)
    assert condition.shape == (2, condition_size(small_detector), 48)
    logits = torch.logit(detection.frame).clamp(-CLIPPED_LOGIT, CLIPPED_LOGIT) / CLIPPED_LOGIT
    repeated = logits.transpose(1, 2).repeat_interleave(4, dim=2)  # the detector pools four frames
    torch.testing.assert_close(condition[:, :10], repeated, atol=1e-4, rtol=1e-4)


def test_another_detector_conditions_by_its_answers(mel):
    class Answers(torch.nn.Module):
        labels = ("Cat", "Dog")

    detection = Detection(torch.full((2, 6, 2), 0.5), torch.zeros(2, 2), [torch.zeros(2, 5)])
    condition = condition_of(Answers(), detection, 24)
    assert condition.shape == (2, condition_size(Answers()), 24) and not condition.any()


@pytest.mark.parametrize("rule", ["own", "own_average"])
def test_rules_apply_to_plausible_classes(class_separator, mel, rule):
    class_separator.merge = rule
    class_separator.plausible = float(class_separator.analyse(mel).alone.frame.amax(1).median())
    class_separator.separates_all = True
    analysis = class_separator.analyse(mel)
    merged = merge_sources(analysis.sources.frame, analysis.alone.frame, rule, plausible=class_separator.plausible)
    torch.testing.assert_close(merged, analysis.merged)


@pytest.mark.parametrize("rule", ["own", "own_average"])
def test_each_class_is_read_from_its_own_source(class_separator, mel, rule):
    class_separator.merge, class_separator.plausible = rule, 0.0
    analysis = class_separator.analyse(mel)
    alone, merged = analysis.alone, analysis.merged
    sources = class_separator.detect_sources(class_separator.separate(mel).features)
    own = torch.stack([sources.frame[:, c, :, c] for c in range(10)], dim=-1)
    wanted = own if rule == "own" else 0.5 * (own + alone.frame)
    torch.testing.assert_close(merged, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(merge_sources(sources.frame, alone.frame, rule), wanted)


def test_of_a_class_that_is_not_plausible_the_mixture_counts(class_separator, mel):
    everything = class_separator.analyse(mel).alone.frame.amax(1)
    class_separator.plausible = float(everything.flatten().sort().values[-4])  # four pairs of clip and class reach it
    alone, separation, sources, merged, asked = class_separator.analyse(mel)
    assert asked.shape[1] == int((everything >= class_separator.plausible).sum(1).max()) < 10
    n_heard = 0
    for b in range(3):
        for c in range(10):
            if everything[b, c] < class_separator.plausible:
                assert torch.equal(merged[b, :, c], alone.frame[b, :, c])
                continue
            k = asked[b].tolist().index(c)
            torch.testing.assert_close(merged[b, :, c], sources.frame[b, k, :, c])
            assert separation.mel[b, k].any()
            n_heard += 1
    assert n_heard == 4


def test_where_no_class_is_plausible_nothing_is_separated(class_separator, mel, monkeypatch):
    class_separator.plausible = 2.0
    class_separator.separates_all = True
    wanted = class_separator.analyse(mel).merged
    class_separator.separates_all = False
    monkeypatch.setattr(MaskNetwork, "forward", None)
    analysis = class_separator.analyse(mel)
    torch.testing.assert_close(analysis.merged, wanted)
    assert analysis.separation.mel.shape == (3, 0, 32, 48) and len(worth_showing(class_separator, analysis)) == 0
    assert not analysis.all_sources(analysis.separation.mel, 10).any()
    waveform = torch.randn(16000).numpy()
    *sources, rest = Predictor(class_separator, device="cpu").separate(waveform, 16000)
    assert not np.any(sources) and np.abs(rest - waveform).max() < 0.1  # without its offset


def test_separating_all_classes_changes_no_answer(class_separator, mel):
    class_separator.plausible = float(class_separator.analyse(mel).alone.frame.amax(1).median())
    some = class_separator.analyse(mel)
    class_separator.separates_all = True
    everything = class_separator.analyse(mel)
    assert everything.asked.shape[1] == 10 > some.asked.shape[1]
    torch.testing.assert_close(everything.merged, some.merged, atol=1e-5, rtol=1e-4)
    sources = (found.all_sources(found.separation.mel, 10) for found in (everything, some))
    torch.testing.assert_close(*sources, atol=1e-5, rtol=1e-4)


def test_a_clip_is_analysed_alike_in_any_batch(class_separator, mel):
    class_separator.plausible = float(class_separator.analyse(mel).alone.frame.amax(1).median())
    together = class_separator.analyse(mel)
    sources = together.all_sources(together.separation.mel, 10)
    for b in range(3):
        alone = class_separator.analyse(mel[b : b + 1])
        torch.testing.assert_close(alone.merged[0], together.merged[b], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone.all_sources(alone.separation.mel, 10)[0], sources[b], atol=1e-5, rtol=1e-4)


def test_a_checkpoint_is_opened_as_what_it_was(class_separator, mel, tmp_path):
    class_separator.save(tmp_path / "separator.safetensors")
    opened = Separator.from_checkpoint(tmp_path / "separator.safetensors")
    assert isinstance(opened, ClassSeparator) and opened.source_names == opened.detector.labels
    torch.testing.assert_close(opened.analyse(mel).merged, class_separator.analyse(mel).merged)


def test_slots_of_a_class_follow_one_another(slotted_separator, class_separator, mel):
    first, second = slotted_separator.separate(mel).mel.unflatten(1, (10, 2)).unbind(2)
    torch.testing.assert_close(first, class_separator.separate(mel).mel, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(first, second)
    labels = slotted_separator.detector.labels
    assert slotted_separator.source_names[:3] == (labels[0], f"{labels[0]}_2", labels[1])
    assert list(slotted_separator.source_labels.values()) == [label for label in labels for _ in range(2)]
    _, condition = slotted_separator.condition(mel)
    some = slotted_separator.separate_classes(mel, condition, torch.tensor([[3, 1]] * 3)).mel
    torch.testing.assert_close(some[:, 0], first[:, 3], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(some[:, 3], second[:, 1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rule", ["own", "own_average"])
def test_a_class_is_read_from_the_larger_of_its_slots(slotted_separator, mel, rule):
    slotted_separator.merge, slotted_separator.plausible = rule, 0.0
    analysis = slotted_separator.analyse(mel)
    sources = slotted_separator.detect_sources(slotted_separator.separate(mel).features).frame
    slots = torch.stack([sources[:, 2 * c : 2 * c + 2, :, c] for c in range(10)], dim=-1)
    assert 0 < (slots[:, 0] > slots[:, 1]).float().mean() < 1
    own = slots.amax(1)
    wanted = own if rule == "own" else 0.5 * (own + analysis.alone.frame)
    torch.testing.assert_close(analysis.merged, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(merge_sources(sources, analysis.alone.frame, rule), wanted)


def test_slots_of_a_class_that_is_not_plausible_are_silent(slotted_separator, mel):
    everything = slotted_separator.analyse(mel).alone.frame.amax(1)
    slotted_separator.plausible = float(everything.flatten().sort().values[-4])
    analysis = slotted_separator.analyse(mel)
    sources = analysis.all_sources(analysis.separation.mel, 20).flatten(2).any(-1).unflatten(1, (10, 2))
    plausible = everything >= slotted_separator.plausible
    assert torch.equal(sources, plausible[:, :, None].expand(-1, -1, 2)) and plausible.sum() == 4


def test_slots_are_opened_again_and_must_be_as_many_for_each_class(slotted_separator, small_detector, mel, tmp_path):
    slotted_separator.save(tmp_path / "separator.safetensors")
    opened = Separator.from_checkpoint(tmp_path / "separator.safetensors")
    assert opened.slots == 2
    torch.testing.assert_close(opened.analyse(mel).merged, slotted_separator.analyse(mel).merged)
    with pytest.raises(ValueError, match="15 masks for 10 classes; give as many for each"):
        ClassSeparator(MaskNetwork(MaskNetworkConfig(n_mels=32, n_sources=15)), small_detector, merge="own")
    small_detector.labels = ("Cat", "Cat_2", *small_detector.labels[2:])
    with pytest.raises(ValueError, match="two of the sources Cat, Cat_2, .* have one name; rename a class"):
        ClassSeparator(slotted_separator.mask_network, small_detector, merge="own")


def test_silence_in_silence_out(class_separator):
    silence = torch.zeros(2, 32, 48)
    assert not class_separator.separate(silence).mel.any()
    assert class_separator.analyse(silence).merged.isfinite().all()


def test_a_rule_that_does_not_apply_is_refused(class_separator, small_separator):
    with pytest.raises(ValueError, match="give own or own_average"):
        Predictor(class_separator, device="cpu", merge="max")
    with pytest.raises(ValueError, match="give max, average, noisy_or or mean"):
        Predictor(small_separator, device="cpu", merge="own")
    with pytest.raises(ValueError, match="give own or own_average"):
        ClassSeparator(class_separator.mask_network, class_separator.detector)
    assert Predictor(class_separator, device="cpu", merge="own_average").separator.merge == "own_average"
