import pytest
import torch

from task_aware.models.features import FeatureConfig
from task_aware.models.projection import project
from task_aware.ops import band_weights

SMALL = FeatureConfig(n_fft=512, hop=320, n_mels=32)


@pytest.mark.parametrize("front_end", [FeatureConfig(), SMALL, FeatureConfig(f_min=300.0, f_max=4000.0)])
def test_every_bin_takes_shares_of_the_bands_around_it(front_end):
    options = (front_end.sample_rate, front_end.n_fft, front_end.n_mels, front_end.f_min, front_end.f_max)
    weights = band_weights(*options).float()
    assert weights.shape == (front_end.n_fft // 2 + 1, front_end.n_mels)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    assert (weights >= 0).all() and ((weights > 0).sum(1) <= 2).all()
    assert weights[0, 0] == 1 and weights[-1, -1] == 1
    centre = weights @ torch.arange(front_end.n_mels, dtype=torch.float32)
    assert (centre.diff() >= -1e-4).all()


def noise(n_samples: int) -> torch.Tensor:
    return torch.rand(2, n_samples, generator=torch.Generator().manual_seed(n_samples)) - 0.5


@pytest.mark.parametrize(("n_samples", "lead"), [(9600, 0), (10017, 0), (16000, 1280)])
def test_sources_sum_to_the_mixture_where_the_masks_sum_to_one(n_samples, lead):
    waveform = noise(n_samples)
    n_frames = SMALL.n_frames(n_samples) - 2 * lead // SMALL.hop
    mask = torch.rand(2, 3, 32, n_frames, generator=torch.Generator().manual_seed(0)).softmax(1)
    sources = project(waveform, mask, SMALL, lead=lead)
    assert sources.shape == (2, 3, n_samples)
    torch.testing.assert_close(sources.sum(1), waveform, rtol=0, atol=1e-5)


def test_a_mask_of_some_bands_and_frames_passes_those_alone():
    time = torch.arange(16000) / 16000
    low, high = torch.sin(2 * torch.pi * 500 * time), torch.sin(2 * torch.pi * 4000 * time)
    mask = torch.zeros(1, 2, 32, SMALL.n_frames(16000))
    mask[:, 0, :16] = 1
    mask[:, 1, :, :20] = 1
    sources = project((low + high)[None], mask, SMALL)[0]
    torch.testing.assert_close(sources[0, 1000:-1000], low[1000:-1000], rtol=0, atol=0.02)
    torch.testing.assert_close(sources[1, 1000:5000], (low + high)[1000:5000], rtol=0, atol=1e-4)
    assert sources[1, 8000:].abs().max() == 0
