"""What `python -m task_aware.export` writes says what the model says."""

import json
import sys

import numpy as np
import pytest
import torch

from task_aware import export
from task_aware.base.errors import TaskAwareError
from task_aware.data.audio import read_audio
from task_aware.models.detector import Detection
from task_aware.models.features import FeatureConfig
from task_aware.models.separator import MaskNetwork, MaskNetworkConfig
from task_aware.models.system import Separator
from task_aware.portable import formats
from task_aware.portable.check import TOLERANCE, own_run
from task_aware.portable.formats import export_onnx, export_torch, noise, open_onnx, open_torch
from task_aware.portable.model import FrontEnd, OnnxGRU

#: As the command holds its files to.
CLOSE = {"rtol": 0, "atol": TOLERANCE}


@pytest.fixture(scope="module")
def clips(tiny_corpus) -> torch.Tensor:
    """Three validation clips of the built-in corpus, five seconds of each: [3, N]."""
    paths = sorted((tiny_corpus / "audio/validation").glob("*.flac"))[:3]
    return torch.from_numpy(np.stack([read_audio(path, 16000)[:80000] for path in paths]))


@torch.no_grad()
def check(run, model, clips: torch.Tensor) -> None:
    """Other batches and lengths than the one that was traced; silence too."""
    own = own_run(model)
    silent = torch.zeros(1, 20000)
    for waveform in (clips, clips[:1, :47777], silent):
        answer = run(waveform)
        assert answer.shape == own(waveform).shape
        torch.testing.assert_close(answer, own(waveform), **CLOSE)
    assert run(clips).std() > 0.01  # not constant


def test_the_front_end_is_the_operators(clips):
    config = FeatureConfig()
    torch.testing.assert_close(FrontEnd(config)(clips), config.mel(clips), rtol=1e-4, atol=1e-4)


def test_a_torch_program_of_any_length(small_separator, clips, tmp_path):
    export_torch(small_separator, tmp_path / "model.pt2")
    check(open_torch(tmp_path / "model.pt2"), small_separator, clips)


def test_sources_of_classes_are_exported_for_all_classes(class_separator, clips, tmp_path):
    class_separator.merge = "own_average"
    class_separator.plausible = 0.8  # some classes of some clips are
    export_torch(class_separator, tmp_path / "model.pt2")
    check(open_torch(tmp_path / "model.pt2"), class_separator, clips)


@pytest.mark.parametrize("kind", ["small_separator", "slotted_separator"])
def test_an_onnx_file_of_any_length(kind, clips, tmp_path, request):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = request.getfixturevalue(kind)
    export_onnx(model, tmp_path / "model.onnx")
    run = open_onnx(tmp_path / "model.onnx")
    check(run, model, clips)


def test_a_second_export_in_one_process_has_free_time_as_the_first(small_detector, clips, tmp_path):
    """torch's own GRU does not: its second export states the length of the example, without a word."""
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    for name in ("first.onnx", "second.onnx"):
        export_onnx(small_detector, tmp_path / name)
        for value in (onnx.load(tmp_path / name).graph.input[0], onnx.load(tmp_path / name).graph.output[0]):
            batch, time = value.type.tensor_type.shape.dim[:2]
            assert batch.dim_param and time.dim_param
    pytest.importorskip("onnxruntime")
    check(open_onnx(tmp_path / "second.onnx"), small_detector, clips)


def test_the_gates_of_an_onnx_gru_are_torchs(tmp_path):
    """ONNX orders the gates otherwise, and by default applies the reset gate before the recurrent product."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    gru = torch.nn.GRU(5, 7, 2, batch_first=True, bidirectional=True)
    for weight in gru.parameters():
        torch.nn.init.uniform_(weight, -1, 1)  # biases that count
    x = torch.randn(3, 11, 5)
    program = torch.onnx.export(OnnxGRU(gru).eval(), (x,), dynamo=True, input_names=["waveform"], verbose=False)
    program.save(tmp_path / "gru.onnx")
    torch.testing.assert_close(open_onnx(tmp_path / "gru.onnx")(x), gru(x)[0], rtol=0, atol=1e-5)


def test_an_onnx_file_can_be_quantised(class_separator, clips, tmp_path):
    """onnxruntime's quantisation ends in an error where weights are turned in the file, once for each use."""
    pytest.importorskip("onnxscript")
    quantization = pytest.importorskip("onnxruntime.quantization")
    export_onnx(class_separator, tmp_path / "model.onnx")
    quantization.quantize_dynamic(
        tmp_path / "model.onnx", tmp_path / "int8.onnx", weight_type=quantization.QuantType.QUInt8
    )
    run, quantised = open_onnx(tmp_path / "model.onnx"), open_onnx(tmp_path / "int8.onnx")
    assert 0 < (quantised(clips) - run(clips)).abs().max() < 0.3


def test_the_command_writes_a_detector_and_what_its_numbers_mean(small_detector, tmp_path, capsys):
    small_detector.save(tmp_path / "detector.safetensors")
    export.main([str(tmp_path / "detector.safetensors"), f"--out={tmp_path}", "--format=torch", "--seconds=2"])
    assert "model.pt2: differs from the model by at most" in capsys.readouterr().out
    description = json.loads((tmp_path / "model.json").read_text())
    assert description["labels"] == list(small_detector.labels)
    assert description["frame_seconds"] == small_detector.frame_seconds and description["seconds"] == 2
    run = open_torch(tmp_path / "model.pt2")
    assert run(noise(4, 32000)).shape[0] == 4
    with pytest.raises(AssertionError):  # torch's own guard
        run(noise(1, 40000))


class Branching(torch.nn.Module):
    """A detector that says other things of loud clips: its mean decides on a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.labels, self.feature_config = ("Cat", "Dog"), FeatureConfig(n_mels=32)
        self.frame_seconds = self.feature_config.frame_seconds
        self.register_buffer("mean", torch.zeros(32))
        self.register_buffer("std", torch.ones(32))

    def forward(self, features: torch.Tensor) -> Detection:
        frame = torch.sigmoid(features[:, :2].transpose(1, 2))
        if features.mean() > 0:
            frame = frame / 2
        return Detection(frame, frame.amax(1), [features])


def test_a_detector_of_one_s_own_that_cannot_be_exported_is_named(tmp_path):
    sizes = MaskNetworkConfig(n_mels=32, n_sources=2, bottleneck=8, hidden=8, skip=8, blocks=1, repeats=1)
    Separator(MaskNetwork(sizes), Branching()).save(tmp_path / "separator.safetensors")
    arguments = [
        str(tmp_path / "separator.safetensors"),
        f"--detector={__name__}:Branching",
        f"--out={tmp_path / 'out'}",
    ]
    with pytest.raises(
        TaskAwareError, match=r"this model cannot be exported to model.pt2 \(.+\); the forward of Branching "
    ):
        export.main([*arguments, "--format=torch", "--seconds=1"])
    assert not (tmp_path / "out" / "model.pt2").exists()


def test_a_file_that_says_something_else_is_an_error(small_detector, tmp_path, monkeypatch):
    small_detector.save(tmp_path / "detector.safetensors")
    monkeypatch.setattr(formats, "open_torch", lambda path: lambda waveform: open_torch(path)(waveform) + 2e-4)
    with pytest.raises(TaskAwareError, match="differs from the model by 2.0e-04, more than the allowed 1e-04"):
        export.main([str(tmp_path / "detector.safetensors"), f"--out={tmp_path}", "--format=torch", "--seconds=1"])


def test_without_the_exporter_s_packages_it_says_what_to_install(small_detector, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(TaskAwareError, match=r"pip install '\.\[export\]'"):
        export_onnx(small_detector, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
