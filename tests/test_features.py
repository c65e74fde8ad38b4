import pytest
import torch

from task_aware.features import FeatureConfig


def test_ten_seconds_are_628_frames_and_output_steps_64_ms():
    config = FeatureConfig()
    assert config.n_frames(160_000) == 628
    assert 4 * config.frame_seconds == pytest.approx(0.06375)
    assert config.mel(torch.zeros(1, 160_000), backend="reference").shape == (1, 128, 628)


def test_log_mel_is_decibel_within_the_range_of_each_clip():
    config = FeatureConfig(n_mels=2)
    mel = torch.tensor([[[1.0, 10.0], [0.0, 1e-3]], [[1e-6, 0.0], [0.0, 0.0]]])
    expected = torch.tensor([[[0.0, 20.0], [-60.0, -60.0]], [[-100.0, -100.0], [-100.0, -100.0]]])
    torch.testing.assert_close(config.log_mel(mel), expected)


def test_scaling_standardises_each_band():
    config = FeatureConfig(n_mels=2)
    scaled = config.scale(torch.tensor([[1.0, 3.0], [4.0, 4.0]]), torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))
    assert scaled.tolist() == [[0.0, 1.0], [0.5, 0.5]]


@pytest.mark.parametrize("options", [{"hop": 0}, {"f_max": 9000.0}, {"f_min": 8000.0}, {"n_mels": 0}])
def test_impossible_front_ends_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        FeatureConfig(**options)
