"""The separation baseline: its network, its objective, its system and its checkpoint."""

from __future__ import annotations

import math

import pytest
import torch

from task_aware.base import checkpoint
from task_aware.base.errors import CheckpointError
from task_aware.data.batches import StrongBatch, TrainingBatch
from task_aware.inference.predictor import Predictor
from task_aware.models.denoiser import (
    BACKGROUND,
    FOREGROUND,
    PRESETS,
    DenoisedDetector,
    Denoiser,
    DenoiserConfig,
    mixture_consistency,
)
from task_aware.training import losses
from task_aware.training.denoiser import DenoisingModule


@pytest.fixture
def denoiser() -> Denoiser:
    torch.manual_seed(2)
    return Denoiser(DenoiserConfig(bottleneck=8, hidden=16, blocks=2, repeats=3))


def waveform(n_clips: int = 2, n_samples: int = 8001) -> torch.Tensor:
    return 0.1 * torch.randn(n_clips, n_samples, generator=torch.Generator().manual_seed(3))


def strong_batch(sources: torch.Tensor) -> StrongBatch:
    """Mixtures `[2, 3, N]` in dry rooms, with a background."""
    rirs = torch.zeros(2, 3, 4)
    rirs[..., 0] = 1
    n_samples = sources.shape[-1]
    unused = torch.zeros(2, 6, 10)
    return StrongBatch(sources, rirs, torch.ones(2, 3), waveform(2, n_samples), torch.zeros(2, 3), unused)


@pytest.mark.parametrize("n_samples", [257, 4000, 8001])
def test_two_outputs_that_sum_to_the_mixture(denoiser, n_samples):
    mixture = waveform(3, n_samples)
    estimates = denoiser(mixture)
    assert estimates.shape == (3, 2, n_samples)
    torch.testing.assert_close(estimates.sum(1), mixture, atol=1e-6, rtol=0)
    assert (estimates[:, BACKGROUND] - estimates[:, FOREGROUND]).abs().max() > 1e-3


def test_a_clip_s_outputs_do_not_depend_on_the_others(denoiser):
    mixture = waveform(3)
    torch.testing.assert_close(denoiser(mixture)[1:2], denoiser(mixture[1:2]), atol=1e-6, rtol=1e-5)


def test_every_weight_learns(denoiser):
    denoiser(waveform())[:, FOREGROUND].square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in denoiser.parameters())


def test_the_baseline_s_32_blocks():
    denoiser = Denoiser(DenoiserConfig(**PRESETS["tdcn"]))
    assert sum(len(repeat) for repeat in denoiser.repeats) == 32
    assert denoiser.n_fft == 512 and denoiser.hop == 128
    # with the detector's 1.1 M the 10 M of the paper's Table 1
    assert sum(weight.numel() for weight in denoiser.parameters()) == pytest.approx(9.1e6, rel=0.01)
    with pytest.raises(ValueError, match="denoiser.blocks is 0"):
        DenoiserConfig(blocks=0)


def test_consistency_spreads_what_is_lacking_by_weight():
    estimates = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    consistent = mixture_consistency(estimates, torch.tensor([[8.0, 2.0]]), torch.tensor([[0.25, 0.75]]))
    assert consistent.tolist() == [[[2.0, 1.0], [6.0, 1.0]]]


def test_thresholded_snr_by_its_formula():
    reference, mixture = [3.0, -4.0, 1.0], [4.0, -3.0, 2.0]
    estimate, leak = [2.0, -4.0, 1.5], [0.5, 0.0, -0.1]
    error = sum((e - r) ** 2 for e, r in zip(estimate, reference, strict=True))
    power = sum(r**2 for r in reference)
    plain = 10 * math.log10((error + 10 ** (-30 / 10) * power) / power)
    mixed = sum(x**2 for x in mixture)
    silent = 10 * math.log10((sum(x**2 for x in leak) + 10 ** (-20 / 10) * mixed) / mixed)
    loss = losses.thresholded_snr(
        torch.tensor([[estimate, leak]]), torch.tensor([[reference, [0.0] * 3]]), torch.tensor([mixture])
    )
    assert loss.tolist() == [pytest.approx([plain, silent], rel=1e-5)]


def test_thresholded_snr_gains_nothing_beyond_the_threshold():
    references = torch.stack([waveform(), torch.zeros(2, 8001)], dim=1)
    estimates = references.clone().requires_grad_()
    loss = losses.thresholded_snr(estimates, references, waveform())
    torch.testing.assert_close(loss, torch.tensor([[-30.0, -20.0]] * 2), atol=1e-3, rtol=0)
    loss.sum().backward()
    assert estimates.grad is not None and estimates.grad.abs().max() == 0
    worse = losses.thresholded_snr(references + 1e-4, references, waveform())
    torch.testing.assert_close(worse, torch.tensor([[-30.0, -20.0]] * 2), atol=0.1, rtol=0)


def test_references_are_background_and_all_images_and_sum_to_the_mixture(denoiser):
    module = DenoisingModule(denoiser, 1e-3, backend="reference")
    batch = strong_batch(waveform(6, 8000).unflatten(0, (2, 3)))
    mixture, references = module.references(batch)
    torch.testing.assert_close(references[:, BACKGROUND], batch.background)
    torch.testing.assert_close(references[:, FOREGROUND], batch.sources.sum(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(references.sum(1), mixture, atol=1e-5, rtol=1e-4)


def test_training_lowers_the_signal_error(denoiser):
    module = DenoisingModule(denoiser, 1e-2, backend="reference")
    module.log = module.log_dict = lambda *_, **__: None  # no trainer here
    optimiser = module.configure_optimizers()
    time = torch.arange(8000) / 16000
    tone = torch.sin(2 * torch.pi * 440 * time).expand(2, 3, 8000) * 0.05
    batch = TrainingBatch(strong_batch(tone), None, None)
    values = []
    for _ in range(15):
        optimiser.zero_grad()
        loss = module.training_step(batch, 0)
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < values[0] - 3  # dB


def test_late_integration_averages_mixture_and_foreground(denoiser, small_detector):
    system = DenoisedDetector(denoiser, small_detector, backend="reference").eval()
    late = system.detect(waveform())
    front_end = small_detector.feature_config

    def heard(samples: torch.Tensor) -> torch.Tensor:
        decibel = front_end.log_mel(front_end.mel(samples, backend="reference"))
        return small_detector(front_end.scale(decibel, small_detector.mean, small_detector.std)).frame

    torch.testing.assert_close(late.mixture, heard(waveform()))
    torch.testing.assert_close(late.foreground, heard(denoiser(waveform())[:, FOREGROUND]))
    torch.testing.assert_close(late.average, (late.mixture + late.foreground) / 2)
    assert (late.mixture - late.foreground).abs().max() > 1e-3
    assert not any(weight.requires_grad for weight in system.train().detector.parameters())


def test_a_checkpoint_brings_the_same_answers(denoiser, small_detector, tmp_path):
    path = tmp_path / "denoiser.safetensors"
    system = DenoisedDetector(denoiser, small_detector).eval()
    system.save(path, steps=3)
    again = DenoisedDetector.from_checkpoint(path)
    for answer, expected in zip(again.detect(waveform()), system.detect(waveform()), strict=True):
        assert torch.equal(answer, expected)
    with pytest.raises(ValueError, match="can only be evaluated, as a baseline"):
        Predictor(path)
    tensors, content = checkpoint.read(path, "denoiser")
    del content["denoiser"]
    checkpoint.write(path, "denoiser", tensors, content)
    with pytest.raises(CheckpointError, match="is incomplete"):
        DenoisedDetector.from_checkpoint(path)


def test_rates_must_agree(small_detector):
    with pytest.raises(ValueError, match="8000 Hz, but the detector works at 16000"):
        DenoisedDetector(Denoiser(DenoiserConfig(sample_rate=8000, **PRESETS["small"])), small_detector)
