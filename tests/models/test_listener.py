"""Listeners: masks become waveforms, waveforms reach the listener at its rate, and gradients come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from task_aware import Predictor
from task_aware.data.batches import RealBatch, StrongBatch, TrainingBatch
from task_aware.models.condition import condition_size
from task_aware.models.detector import Detection, features_of
from task_aware.models.features import FeatureConfig
from task_aware.models.listener import Together, embedded, heard_by, masked_front_end
from task_aware.models.opening import open_detector
from task_aware.models.protocol import check_listener, check_trainable, output_frames
from task_aware.models.separator import MaskNetwork, MaskNetworkConfig
from task_aware.models.system import ClassSeparator, Separator
from task_aware.training.config import LossConfig, OptimiserConfig, SeparatorConfig, TrainConfig
from task_aware.training.objectives import Stage
from task_aware.training.separator import TaskAwareModule
from task_aware.training.setup import corpus_for

RATE = 8000
MASKS = FeatureConfig(n_fft=256, hop=160, n_mels=16)


class LoudnessListener(nn.Module):
    """Hears at 8 kHz how loud the low and the high frequencies are, each 20 ms; not on any grid of the masks' own."""

    labels: tuple[str, ...] = ("Speech", "Dog")
    sample_rate = RATE
    frame_seconds = 0.02
    feature_config = MASKS

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", torch.tensor([[[1.0, 1.0]], [[1.0, -1.0]]]))

    def forward(self, waveform: Tensor) -> Detection:
        bands = nn.functional.conv1d(nn.functional.pad(waveform, (1, 0))[:, None], self.filters.to(waveform.dtype))
        power = nn.functional.avg_pool1d(bands.square(), 160, ceil_mode=True).transpose(1, 2)
        frame = torch.sigmoid(100 * power - 1)
        return Detection(frame, frame.amax(1), [power])


class Embedding(LoudnessListener):
    labels = ()

    def forward(self, waveform: Tensor) -> Detection:
        heard = super().forward(waveform)
        return embedded(heard.activations, heard.frame.shape[1])


def network(n_sources: int, conditioning: int = 0) -> MaskNetwork:
    torch.manual_seed(0)
    return MaskNetwork(
        MaskNetworkConfig(
            n_mels=16, n_sources=n_sources, bottleneck=8, hidden=8, skip=8, blocks=2, repeats=1,
            conditioning=conditioning,
        )
    )  # fmt: skip


def class_system(listener: nn.Module | None = None) -> ClassSeparator:
    detector = check_listener(listener or LoudnessListener(), "a listener")
    system = ClassSeparator(network(2, condition_size(detector)), detector, merge="own", mask_floor=0.0)
    return system.eval()


def strong_batch(n_frames: int, n_classes: int = 2) -> StrongBatch:
    generator = torch.Generator().manual_seed(0)
    sources = 0.1 * torch.randn(2, 2, 8000, generator=generator)
    sources[:, 0, 4000:] = 0
    frames = torch.zeros(2, n_frames, n_classes)
    frames[:, : n_frames // 2, 0] = 1
    frames[:, :, 1] = 1
    labels = torch.tensor([[0, 1]]).expand(2, 2)
    return StrongBatch(sources, torch.ones(2, 2, 1), torch.ones(2, 2), torch.zeros(2, 8000), labels, frames)


def test_masks_of_one_let_the_listener_hear_the_mixture_at_its_own_rate():
    system = class_system()
    time = torch.arange(16000) / 16000
    waveform = (0.3 * torch.sin(2 * torch.pi * 440 * time) * (time < 0.5))[None]
    mel = MASKS.mel(waveform)
    separation = system.masked(mel, torch.full((1, 2, 16, mel.shape[-1]), 50.0), waveform)
    torch.testing.assert_close(separation.features, waveform[:, None].expand(1, 2, -1), atol=1e-4, rtol=0)
    heard = system.detect_sources(separation.features)
    at_own_rate = torch.from_numpy(np.sin(2 * np.pi * 440 * np.arange(8000) / RATE) * (np.arange(8000) < 4000))
    expected = LoudnessListener()((0.3 * at_own_rate.float())[None])
    assert heard.frame.shape == (1, 2, 50, 2)
    torch.testing.assert_close(heard.frame[0, 0], expected.frame[0], atol=0.05, rtol=0)
    assert heard.frame[0, 0, :24, 0].min() > 0.9 > 0.5 > heard.frame[0, 0, 26:, 0].max()


def test_gradients_reach_the_masks_through_resynthesis_and_resampling():
    detector = check_listener(LoudnessListener(), "a listener").double()
    waveform = 0.1 * torch.randn(1, 1600, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mel = MASKS.mel(waveform)

    def loss(logits: Tensor) -> Tensor:
        _, sources = detector.masked(mel, waveform, logits, floor=0.02, backend="auto")
        return detector(sources.flatten(0, 1)).frame.square().sum()

    logits = torch.randn(1, 2, 16, mel.shape[-1], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(logits), logits)
    direction = torch.randn_like(logits)
    step = 1e-5 * direction
    measured = (loss(logits.detach() + step) - loss(logits.detach() - step)) / 2e-5
    assert float((gradient * direction).sum()) == pytest.approx(float(measured), rel=1e-4)


@pytest.mark.parametrize("sources", ["classes", "free"])
def test_a_separator_learns_through_a_listener_alone(sources):
    torch.manual_seed(0)
    if sources == "classes":
        system, losses = class_system(), LossConfig(mse=0.0, frame=0.0, own=1.0, deep_feature=1.0)
    else:
        system = Separator(network(2), check_listener(LoudnessListener(), "a listener"))
        losses = LossConfig(mse=0.0, frame=1.0, deep_feature=1.0)
    module = TaskAwareModule(system.train(), losses, OptimiserConfig(separation_share=0.0, anchor_share=0.0), n_asked=2)
    batch = TrainingBatch(strong_batch(output_frames(system.detector, 8000)), None, None)
    stage = Stage(anchored=False, through_detector=True)
    optimiser = torch.optim.Adam(system.mask_network.parameters(), 1e-2)
    values = []
    for _ in range(8):
        optimiser.zero_grad()
        loss = module.objectives(batch, stage)
        loss.total.backward()
        optimiser.step()
        values.append(float(loss.total))
    assert values[-1] < 0.98 * values[0]
    assert all(parameter.grad is None for parameter in system.detector.parameters())
    assert module.measure(batch.strong)


@pytest.mark.parametrize("length", [8000, 6000])
@pytest.mark.parametrize("sources", ["classes", "free"])
def test_real_clips_reach_a_listener_beside_mixtures_also_in_mixed_precision(sources, length):
    heard = []

    class Noting(LoudnessListener):
        def forward(self, waveform: Tensor) -> Detection:
            heard.append(waveform.dtype)
            return super().forward(waveform)

    own = sources == "classes"
    system = class_system(Noting()) if own else Separator(network(2), check_listener(Noting(), "a listener"))
    losses = LossConfig(frame=float(not own), own=float(own), weak=1.0, teacher=1.0, deep_feature=1.0)
    objectives = TaskAwareModule(system.train(), losses, OptimiserConfig(), n_asked=2).objectives
    weak, unlabelled = (RealBatch(0.1 * torch.randn(n, length), torch.eye(2)[:n]) for n in (1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        loss = objectives(TrainingBatch(strong_batch(25), weak, unlabelled), Stage(False, through_detector=True))
    loss.total.backward()
    assert {"weak", "teacher", "deep_feature"} < set(loss.terms) and loss.total.isfinite()
    assert set(heard) == {torch.float32}


def test_the_deep_feature_loss_of_perfect_masks_is_near_that_of_the_images():
    """The targets that the listener hears are the images' own waveforms, with the floor's share of the mixture."""
    system = class_system()
    system.mask_floor = 0.1
    objectives = TaskAwareModule(system, LossConfig(own=0.0, deep_feature=1.0), OptimiserConfig()).objectives
    mixed = objectives.images(strong_batch(50))[0]
    heard = objectives.heard_images(mixed, torch.zeros(()))
    torch.testing.assert_close(heard, mixed.images + 0.1 * mixed.mixture[:, None])


def test_embeddings_alone_train_by_the_deep_feature_loss():
    system = Separator(network(2), check_listener(Embedding(), "an embedding"))
    losses = LossConfig(mse=0.0, frame=0.0, deep_feature=1.0)
    module = TaskAwareModule(system.train(), losses, OptimiserConfig(separation_share=0.0, anchor_share=0.0))
    batch = TrainingBatch(strong_batch(50), None, None)
    loss = module.objectives(batch, Stage(anchored=False, through_detector=True))
    loss.total.backward()
    gradient = system.mask_network.mask[1].weight.grad
    assert loss.terms["deep_feature"] > 0 and gradient.isfinite().all() and gradient.abs().max() > 0


def test_what_embeds_separates_recordings_although_it_names_nothing():
    predictor = Predictor(Separator(network(2), check_listener(Embedding(), "an embedding")))
    samples = 0.1 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    result = predictor.analyse_waveform(samples, 16000)
    assert result.scores.shape == (50, 0) and result.events == []
    assert predictor.separate(samples, 16000).shape == (2, 16000)


def test_windows_of_a_long_recording_reach_a_listener_as_the_whole_does():
    system = class_system()
    system.plausible = 0.0
    time = np.arange(16000 * 5) / 16000
    samples = (0.3 * np.sin(2 * np.pi * 440 * time) * (np.floor(time * 2) % 2)).astype(np.float32)
    whole = Predictor(system).analyse_waveform(samples, 16000)
    windows = Predictor(system, window_seconds=2.0, overlap_seconds=0.5).analyse_waveform(samples, 16000)
    assert whole.scores.shape == windows.scores.shape == (250, 2)
    away_from_edges = np.abs(np.arange(250) * 0.02 % 0.5 - 0.25) < 0.2
    loud = whole.scores[away_from_edges, 0] > 0.5
    assert 0.3 < loud.mean() < 0.7
    np.testing.assert_array_equal(windows.scores[away_from_edges, 0] > 0.5, loud)
    assert len(whole.alone) == len(windows.alone) > 0


def test_a_listener_without_its_waveform_is_an_error():
    with pytest.raises(ValueError, match="hears waveforms"):
        heard_by(check_listener(LoudnessListener(), "a listener"), torch.zeros(1, 16, 101), None)


def altered(**attributes: object) -> nn.Module:
    listener = LoudnessListener()
    for name, value in attributes.items():
        setattr(listener, name, value)
    return listener


@pytest.mark.parametrize(
    ("seconds", "rate", "expected"),
    [
        (0.032, 16000, (16000, 1024, 256)),
        (0.1, 8000, (16000, 1024, 320)),
        (0.01, 48000, (16000, 1024, 160)),
        (1024 / 22050, 22050, (22050, 1024, 256)),
        (512 / 22050, 22050, (22050, 1024, 256)),
    ],
)
def test_masks_have_whole_frames_in_the_frames_of_a_listener(seconds, rate, expected):
    front_end = masked_front_end(altered(frame_seconds=seconds, sample_rate=rate))
    assert (front_end.sample_rate, front_end.n_fft, front_end.hop) == expected


def test_two_detectors_hear_together_each_with_its_weight(small_detector):
    listener = check_listener(LoudnessListener(), "a listener")
    both = check_listener(Together(small_detector, listener, (0.5, 2.0)), "both")
    waveform = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    of_mel = small_detector(features_of(small_detector, small_detector.feature_config.mel(waveform)))
    found, of_waveform = both(waveform), listener(waveform)
    torch.testing.assert_close(found.frame, of_mel.frame)
    expected = [*(0.5 * x for x in of_mel.activations), *(2.0 * x for x in of_waveform.activations)]
    torch.testing.assert_close(found.activations, expected)
    check_trainable(both, "both")
    small_detector.feature_config = FeatureConfig(sample_rate=32000, n_mels=32)
    with pytest.raises(ValueError, match="hear at 32000 and 16000 Hz"):
        Together(small_detector, listener)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"losses": LossConfig(own=1.0, frame=0.5, deep_feature=1.0)}, "losses.frame, losses.own compare them"),
        ({"losses": LossConfig(frame=0.0), "separator": SeparatorConfig(sources="classes")}, "sources free"),
    ],
)
def test_a_listener_without_classes_refuses_what_needs_them(options, message):
    with pytest.raises(ValueError, match=message):
        corpus_for(TrainConfig(**options), check_listener(Embedding(), "an embedding"))


def test_a_listener_without_classes_takes_those_of_the_data(tiny_corpus):
    config = TrainConfig(data=tiny_corpus, losses=LossConfig(frame=0.0, deep_feature=1.0))
    assert len(corpus_for(config, check_listener(Embedding(), "an embedding")).encoder) == 10


def test_the_example_hears_what_its_network_does_and_can_be_trained_through(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    detector = open_detector("own_listener:make")
    check_trainable(detector, "own_listener:make")
    samples = 0.1 * np.random.default_rng(0).standard_normal(8 * 256)
    expected = [detector.listener.network.process(chunk) for chunk in samples.reshape(8, 256)]
    heard = detector.listener(torch.from_numpy(samples).float()[None]).frame[0, :, 0]
    np.testing.assert_allclose(heard.detach(), expected, atol=1e-5)
    system = ClassSeparator(
        MaskNetwork(MaskNetworkConfig(n_mels=64, n_sources=1, bottleneck=8, hidden=8, skip=8, blocks=1, repeats=1)),
        detector,
        merge="own",
    )
    assert Predictor(system).analyse_waveform(samples.astype(np.float32).repeat(4), 16000).scores.shape == (16, 1)
