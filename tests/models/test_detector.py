import copy
import pickle

import pytest
import torch

from task_aware.base import checkpoint
from task_aware.base.errors import CheckpointError
from task_aware.data.labels import DESED_CLASSES
from task_aware.models.crnn import CRNN, CRNNConfig, load_detector
from task_aware.models.detector import Detector, freeze
from task_aware.models.features import FeatureConfig
from task_aware.training.losses import binary_cross_entropy, deep_feature_loss


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_baseline_has_its_published_size_and_shapes():
    detector = CRNN(CRNNConfig(), DESED_CLASSES, FeatureConfig()).eval()
    assert count(detector) == 1_112_420
    assert count(detector.blocks) == 612_688
    assert count(detector.rnn) == 494_592
    assert count(detector.dense) == count(detector.dense_softmax) == 2_570
    assert FeatureConfig().n_frames(160_000) == 628
    with torch.no_grad():
        detection = detector(torch.randn(2, 128, 628))
    assert detection.frame.shape == (2, 157, 10)
    assert detection.clip.shape == (2, 10)
    assert len(detection.activations) == 8
    assert detector.output_frames(160_000) == (157, pytest.approx(4 * 255 / 16000))


def test_clip_probabilities_are_the_attention_pooled_frames(small_detector):
    features = torch.randn(2, 32, 40)
    seen = {}
    small_detector.dense_softmax.register_forward_hook(lambda *args: seen.update(logits=args[2]))
    with torch.no_grad():
        detection = small_detector(features)
    attention = seen["logits"].softmax(-1).clamp(1e-7, 1)
    expected = (detection.frame * attention).sum(1) / attention.sum(1)
    torch.testing.assert_close(detection.clip, expected)


def test_glu_gates_a_linear_map_by_its_own_input(small_detector):
    glu = small_detector.blocks[0][2]
    x = torch.randn(2, 4, 5, 6)
    linear = torch.nn.functional.linear(x.permute(0, 2, 3, 1), glu.linear.weight, glu.linear.bias)
    torch.testing.assert_close(glu(x), linear.permute(0, 3, 1, 2) * x.sigmoid())


def test_freezing_stops_weight_gradients_but_not_the_input_s(small_detector):
    frozen = freeze(small_detector)
    features = torch.randn(1, 32, 40, requires_grad=True)
    before = frozen(features).frame
    before.sum().backward()
    assert features.grad is not None and features.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in frozen.parameters())
    torch.testing.assert_close(small_detector.eval()(features).frame, before)


def test_it_satisfies_the_protocol_and_another_module_does_not(small_detector):
    assert isinstance(small_detector, Detector)
    assert not isinstance(torch.nn.Linear(1, 1), Detector)


def test_pooling_that_leaves_mel_bands_is_named():
    with pytest.raises(ValueError, match="must multiply to features.n_mels"):
        CRNN(CRNNConfig(filters=(4,), pooling=((2, 4),)), DESED_CLASSES, FeatureConfig(n_mels=32))


def test_saved_and_loaded_it_answers_the_same(tmp_path, small_detector):
    small_detector.save(tmp_path / "detector.safetensors", steps=3)
    loaded = load_detector(tmp_path / "detector.safetensors")
    features = torch.randn(1, 32, 40)
    torch.testing.assert_close(loaded(features).frame, small_detector(features).frame, rtol=0, atol=0)
    assert (loaded.labels, loaded.feature_config) == (small_detector.labels, small_detector.feature_config)


def test_weights_of_other_sizes_are_one_sentence(tmp_path, small_detector):
    path = tmp_path / "detector.safetensors"
    description = small_detector.describe() | {"labels": ["Cat"]}
    checkpoint.write(path, "detector", small_detector.state_dict(), {"detector": description, "notes": {}})
    with pytest.raises(CheckpointError, match="do not fit the sizes given in the same file"):
        load_detector(path)


def test_a_causal_detector_comes_back_and_a_file_without_the_option_is_not_causal(
    tmp_path, causal_detector, small_detector
):
    path = tmp_path / "detector.safetensors"
    causal_detector.save(path)
    loaded = load_detector(path)
    assert loaded.config == causal_detector.config and loaded.feature_config.top_db == float("inf")
    features = torch.randn(1, 32, 40)
    torch.testing.assert_close(loaded(features).frame, causal_detector(features).frame, rtol=0, atol=0)
    description = small_detector.describe()
    del description["crnn"]["causal"], description["crnn"]["lookahead"]
    checkpoint.write(path, "detector", small_detector.state_dict(), {"detector": description, "notes": {}})
    assert not load_detector(path).config.causal


def test_a_causal_detector_hears_no_further_than_its_lookahead(causal_detector, small_detector):
    features = torch.randn(1, 32, 64)
    other = features.clone()
    other[..., 40:] += 1.0  # from output frame 10 on
    for detector, lookahead in ((causal_detector, 2), (small_detector, None)):
        assert detector.lookahead == (lookahead or 0)
        same = torch.isclose(detector(features).frame, detector(other).frame, atol=1e-6).all((0, 2))
        assert same.shape == (16,) and not same[8]
        assert same[:8].all() == (lookahead is not None)


def test_a_lookahead_answers_later_what_is_said_without(causal_detector):
    features = torch.randn(1, 32, 64)
    late = causal_detector(features).frame
    causal_detector.lookahead = 0
    prompt = causal_detector(features).frame
    torch.testing.assert_close(late[:, :-2], prompt[:, 2:])
    assert late.shape == prompt.shape


def test_a_lookahead_is_for_causal_detectors():
    with pytest.raises(ValueError, match=r"crnn.lookahead is 3; it must be 0, or with crnn.causal"):
        CRNNConfig(lookahead=3)


@pytest.mark.parametrize("causal", [False, True])
def test_evaluation_in_fewer_passes_says_the_same_as_layer_by_layer(causal) -> None:
    """The folded norm and the fused gate: outputs, activations and the gradient of the features."""
    torch.manual_seed(0)
    config = CRNNConfig(filters=(8, 16, 16, 16, 16, 16, 16), rnn_cells=16, initialisation="unit", causal=causal)
    detector = freeze(CRNN(config, DESED_CLASSES, FeatureConfig()))
    assert isinstance(detector, CRNN)
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 3)
            torch.nn.init.normal_(module.weight, 1, 0.3)
            torch.nn.init.normal_(module.bias)
    results = {}
    for backend in ("native", "reference"):
        detector.backend = backend
        features = torch.randn(3, 128, 101, generator=torch.Generator().manual_seed(1)).requires_grad_()
        detection = detector(features)
        outputs = [detection.frame, detection.clip, *detection.activations]
        loss = sum((x * torch.linspace(-1, 1, x.numel()).view_as(x)).mean() for x in outputs)
        results[backend] = [x.detach() for x in outputs] + list(torch.autograd.grad(loss, features))
    for fused, plain in zip(results["native"], results["reference"], strict=True):
        assert (fused - plain).abs().max() < 1e-4 * plain.abs().max()


def test_copies_have_a_recurrence_of_their_own(small_detector):
    small_detector.backend = "reference"  # or it would not be asked
    features = torch.randn(1, 32, 40)
    expected = small_detector(features).activations[-1]
    for other in (copy.deepcopy(small_detector), pickle.loads(pickle.dumps(small_detector))):
        torch.testing.assert_close(other(features).activations[-1], expected, rtol=0, atol=0)
        with torch.no_grad():
            for weight in other.rnn.parameters():
                weight.zero_()
        assert other(features).activations[-1].abs().max() == 0
        assert small_detector(features).activations[-1].abs().max() > 0


def test_a_false_alarm_beyond_doubt_has_a_gradient_in_bfloat16(small_detector):
    """In bfloat16 a probability above 0.998 is 1, where the cross-entropy has no slope that leads away."""
    small_detector.dense.weight.data.zero_()
    small_detector.dense.bias.data.fill_(8.0)
    with torch.autocast("cpu", torch.bfloat16):
        frame = small_detector(torch.randn(1, 32, 40)).frame
        binary_cross_entropy(frame, torch.zeros(frame.shape)).backward()
    grad = small_detector.dense.bias.grad
    assert grad is not None
    torch.testing.assert_close(grad.sum(), torch.tensor(8.0).sigmoid(), rtol=1e-2, atol=0)


def test_a_clip_is_no_more_probable_in_bfloat16_than_its_frames(small_detector):
    small_detector.dense.bias.data.fill_(20.0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        frame, clip, _ = small_detector(torch.randn(8, 32, 200))
    assert (clip <= frame.amax(1)).all() and (clip >= frame.amin(1)).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_the_deep_feature_loss_has_a_finite_gradient_within_autocast_on_a_gpu(small_detector):
    small_detector.backend = "reference"
    detector = freeze(small_detector).to("cuda")
    oracle = torch.randn(16, 32, 400, device="cuda")
    features = (oracle + 1e-3 * torch.randn_like(oracle)).requires_grad_()
    with torch.autocast("cuda", torch.bfloat16):
        estimated, wanted = detector(features).activations, detector(oracle).activations
        loss = deep_feature_loss(estimated, [x.detach() for x in wanted])
    loss.backward()
    assert estimated[-1].dtype == torch.float32
    assert features.grad is not None and features.grad.isfinite().all() and features.grad.abs().sum() > 0
