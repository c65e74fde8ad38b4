import dataclasses

import pytest
import torch

from task_aware import Separator
from task_aware.base import checkpoint
from task_aware.base.errors import CheckpointError
from task_aware.models.crnn import CRNN
from task_aware.models.features import FeatureConfig
from task_aware.models.merging import merge_sources


def mixture(n_frames: int = 40) -> torch.Tensor:
    return torch.rand(2, 32, n_frames, generator=torch.Generator().manual_seed(0))


def test_sources_stay_between_the_mask_floor_and_the_mixture(small_separator):
    mel = mixture()
    separated = small_separator.separate(mel).mel
    assert separated.shape == (2, 3, 32, 40)
    assert (separated <= mel[:, None] * (1 + 1e-6)).all()
    assert (separated >= 0.02 * mel[:, None] * (1 - 1e-6)).all()


def test_separated_features_are_what_the_detector_reads_of_that_mel(small_separator):
    separation = small_separator.separate(mixture())
    torch.testing.assert_close(
        separation.features, small_separator.mixture_features(separation.mel), rtol=1e-4, atol=1e-4
    )


def test_detecting_sources_is_detecting_each_alone(small_separator):
    features = small_separator.separate(mixture()).features
    together = small_separator.detect_sources(features)
    alone = small_separator.detector(features[1, 2][None])
    torch.testing.assert_close(together.frame[1, 2], alone.frame[0])
    torch.testing.assert_close(together.clip[1, 2], alone.clip[0])


def test_merging_rules():
    sources = torch.tensor([[[0.2, 0.9], [0.6, 0.1]]])
    alone = torch.tensor([[0.4, 0.5]])
    expected = {"max": [0.6, 0.9], "average": [0.5, 0.7], "noisy_or": [0.68, 0.91], "mean": [0.4, 0.5]}
    for rule, value in expected.items():
        torch.testing.assert_close(merge_sources(sources, alone, rule), torch.tensor([value]))
    with pytest.raises(ValueError, match="no merging rule is called 'median'"):
        merge_sources(sources, alone, "median")


def test_training_mode_leaves_the_detector_frozen(small_separator):
    small_separator.train()
    assert small_separator.mask_network.training
    assert not small_separator.detector.blocks[0][1].training
    assert not any(parameter.requires_grad for parameter in small_separator.detector.parameters())


def test_a_checkpoint_holds_the_detector_too(tmp_path, small_separator):
    path = tmp_path / "separator.safetensors"
    small_separator.save(path)
    loaded = Separator.from_checkpoint(path, backend="reference")
    for mine, theirs in zip(small_separator.analyse(mixture()).merged, loaded.analyse(mixture()).merged, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_a_causal_system_comes_back_and_a_file_without_the_option_is_not_causal(
    tmp_path, causal_separator, small_separator
):
    path = tmp_path / "separator.safetensors"
    causal_separator.save(path)
    loaded = Separator.from_checkpoint(path)
    assert loaded.mask_network.config.causal and loaded.detector.config.causal
    torch.testing.assert_close(
        loaded.analyse(mixture()).merged, causal_separator.analyse(mixture()).merged, rtol=0, atol=0
    )
    small_separator.save(path)
    tensors, content = checkpoint.read(path, "separator")
    del content["mask_network"]["causal"], content["detector"]["crnn"]["causal"]
    del content["detector"]["crnn"]["lookahead"]
    checkpoint.write(path, "separator", tensors, content)
    old = Separator.from_checkpoint(path, backend="reference")
    torch.testing.assert_close(old.analyse(mixture()).merged, small_separator.analyse(mixture()).merged, rtol=0, atol=0)


def test_a_detector_of_other_labels_or_features_is_refused(tmp_path, small_separator):
    path = tmp_path / "separator.safetensors"
    small_separator.save(path)
    detector = small_separator.detector
    with pytest.raises(CheckpointError, match="was made for the labels"):
        Separator.from_checkpoint(path, CRNN(detector.config, ("Cat", "Dog"), detector.feature_config))
    features = dataclasses.replace(detector.feature_config, hop=256)
    with pytest.raises(CheckpointError, match="was made for FeatureConfig"):
        Separator.from_checkpoint(path, CRNN(detector.config, detector.labels, features))
    assert isinstance(features, FeatureConfig)


class ForeignDetector(torch.nn.Module):
    """A user's own detector: a linear layer per frame."""

    def __init__(self, like: CRNN) -> None:
        super().__init__()
        self.labels, self.feature_config, self.frame_seconds = like.labels, like.feature_config, 0.02
        self.register_buffer("mean", like.mean.clone())
        self.register_buffer("std", like.std.clone())
        self.linear = torch.nn.Linear(32, len(like.labels))

    def forward(self, features):
        from task_aware.models.detector import Detection

        logits = self.linear(features.transpose(1, 2))
        frame = logits.sigmoid()
        return Detection(frame, frame.amax(1), [logits])


def test_a_detector_of_one_s_own_is_not_stored_and_must_be_given(tmp_path, small_separator):
    path = tmp_path / "separator.safetensors"
    foreign = ForeignDetector(small_separator.detector)
    system = Separator(small_separator.mask_network, foreign, backend="reference")
    system.save(path)
    with pytest.raises(CheckpointError, match="name it with --detector .*, or pass it in Python as `detector`"):
        Separator.from_checkpoint(path)
    loaded = Separator.from_checkpoint(path, foreign, backend="reference")
    torch.testing.assert_close(loaded.analyse(mixture()).merged, system.analyse(mixture()).merged)
