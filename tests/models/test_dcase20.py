"""The import of the DCASE 2020 baseline, against a network written here as the baseline's description says."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from task_aware import Predictor, import_dcase20, load_detector
from task_aware.base.errors import CheckpointError
from task_aware.data.labels import DESED_CLASSES
from task_aware.models.dcase20 import convert, read_file
from task_aware.models.detector import median_frames_of
from task_aware.scoring.evaluation import Heard, decode_all

FILTERS = (16, 32, 64, 128, 128, 128, 128)
POOLING = [[2, 2], [2, 2], [1, 2], [1, 2], [1, 2], [1, 2], [1, 2]]


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) * torch.sigmoid(x)


class BidirectionalGRU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(128, 128, bidirectional=True, batch_first=True, num_layers=2)


class Baseline:
    """The original network in evaluation: `[B, 1, T, F]` -> strong `[B, T / 4, 10]`."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.cnn = nn.Sequential()
        channels = 1
        for i, (filters, pool) in enumerate(zip(FILTERS, POOLING, strict=True)):
            self.cnn.add_module(f"conv{i}", nn.Conv2d(channels, filters, 3, 1, 1))
            norm = nn.BatchNorm2d(filters, eps=0.001, momentum=0.99)
            nn.init.normal_(norm.running_mean, 0, 0.3)
            nn.init.uniform_(norm.running_var, 0.2, 1.0)
            self.cnn.add_module(f"batchnorm{i}", norm)
            self.cnn.add_module(f"glu{i}", Gate(filters))
            self.cnn.add_module(f"pooling{i}", nn.AvgPool2d(tuple(pool)))
            channels = filters
        self.rnn = BidirectionalGRU()
        self.dense = nn.Linear(256, 10)
        nn.init.normal_(self.dense.weight)
        self.cnn.eval()

    @torch.no_grad()
    def strong(self, x: torch.Tensor) -> torch.Tensor:
        x = self.cnn(x).squeeze(-1).permute(0, 2, 1)
        return torch.sigmoid(self.dense(self.rnn.rnn(x)[0]))

    def entry(self) -> dict:
        parts = {"cnn": self.cnn, "rnn": self.rnn, "dense": self.dense}
        kwargs = {"n_in_channel": 1, "nclass": 10, "attention": True, "nb_filters": list(FILTERS), "pooling": POOLING}
        state = {name: part.state_dict() for name, part in parts.items()}
        return {"name": "CRNN", "args": "", "kwargs": kwargs, "state_dict": state}


@pytest.fixture(scope="module")
def networks() -> tuple[Baseline, Baseline]:
    """Student and teacher."""
    return Baseline(0), Baseline(1)


@pytest.fixture(scope="module")
def content(networks) -> dict:
    student, teacher = networks
    mean = np.linspace(-40, -20, 128)
    scaler = {"mean_": mean.tolist(), "mean_of_square_": (mean**2 + np.linspace(5, 15, 128) ** 2).tolist()}
    return {
        "model": student.entry(),
        "model_ema": teacher.entry(),
        "optimizer": {"name": "Adam", "args": "", "kwargs": {"lr": 0.001}, "state_dict": {"state": {}}},
        "pooling_time_ratio": 4,
        "scaler": {"type": "Scaler", "args": (), "state_dict": scaler},
        "many_hot_encoder": {"labels": list(DESED_CLASSES), "n_frames": 157},
        "median_window": 9,
        "desed": {},
        "epoch": 3,
        "valid_metric": {"F1": np.float64(0.348)},  # such numbers are in there too
    }


@pytest.fixture
def file(content, tmp_path):
    torch.save(content, tmp_path / "baseline")
    return tmp_path / "baseline"


def test_files_of_2020_are_read(content, tmp_path):
    """torch's format before 1.6, and numpy's modules before 2.0."""
    path = tmp_path / "baseline"
    torch.save(content, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    found = read_file(path)
    assert found["valid_metric"] == content["valid_metric"]
    weight = found["model"]["state_dict"]["dense"]["weight"]
    assert torch.equal(weight, content["model"]["state_dict"]["dense"]["weight"])


@pytest.mark.parametrize("ema", [False, True])
def test_frames_are_the_original_s(networks, content, file, tmp_path, ema):
    out = tmp_path / "detector.safetensors"
    import_dcase20.main([str(file), str(out), *(["--ema"] if ema else [])])
    detector = load_detector(out)
    features = torch.randn(2, 128, 628)
    with torch.no_grad():
        detection = detector(features)
    expected = networks[ema].strong(features.transpose(1, 2)[:, None])
    assert expected.shape == (2, 157, 10) and expected.std() > 0.05
    torch.testing.assert_close(detection.frame, expected, rtol=0, atol=1e-5)
    linear_softmax = expected.square().sum(1) / expected.sum(1)
    torch.testing.assert_close(detection.clip, linear_softmax, rtol=0, atol=1e-5)
    torch.testing.assert_close(detector.mean, torch.linspace(-40, -20, 128))
    torch.testing.assert_close(detector.std, torch.linspace(5, 15, 128), rtol=1e-4, atol=0)
    assert detector.labels == DESED_CLASSES


def test_the_attention_is_warned_of_and_can_be_a_maximum(file, tmp_path, caplog):
    out = tmp_path / "detector.safetensors"
    import_dcase20.main([str(file), str(out), "--clip-pooling=max"])
    assert "attention layer (dense_softmax)" in caplog.text and "by max instead" in caplog.text
    with torch.no_grad():
        detection = load_detector(out)(torch.randn(1, 128, 40))
    assert torch.equal(detection.clip, detection.frame.amax(1))


def test_the_file_s_median_window_decodes(content, tmp_path):
    detector = convert(content, tmp_path)
    assert median_frames_of(detector) == 9
    frame = np.zeros((157, 10), dtype=np.float32)
    frame[20:24] = 0.9  # 4 frames: a median of 7 keeps them, one of 9 does not
    assert decode_all([Heard("a", 10.0, {"it": frame})], detector) == {"it": {"a": []}}
    narrow = convert({**content, "median_window": 7}, tmp_path)
    assert len(decode_all([Heard("a", 10.0, {"it": frame})], narrow)["it"]["a"]) == 10
    assert Predictor(detector).median_frames == 9 and Predictor(detector, median_frames=1).median_frames == 1


def changed(content: dict, *path: str, value: object = None) -> dict:
    """The content with another value at a place, or without that place."""
    content = copy.deepcopy(content)
    inner = content
    for name in path[:-1]:
        inner = inner[name]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model",), None, r"has no entry \['model'\]; it is not a checkpoint of"),
        (("scaler", "state_dict", "mean_"), None, r"has no entry \['scaler'\]\['state_dict'\]\['mean_'\]"),
        (("median_window",), None, r"has no entry \['median_window'\]"),
        (("model", "state_dict", "cnn"), {}, "not the baseline's"),
        (("model", "state_dict", "rnn", "rnn.bias_hh_l1"), None, "weights .* are not the baseline's: Missing"),
        (("model", "state_dict", "cnn", "bn0.weight"), torch.ones(3), "Unexpected key.*bn0.weight"),
        (("model", "state_dict", "dense", "weight"), torch.ones(10, 3), "size mismatch for dense.weight"),
        (("many_hot_encoder", "labels"), ["Cat"], "size mismatch for dense"),
        (("model", "kwargs", "pooling"), [[1, 2]] * 7, "pooling_time_ratio 4, but its blocks pool 1 frames"),
        (("scaler", "state_dict", "mean_of_square_"), [0.0] * 128, "variances that are not above 0"),
        (("scaler", "state_dict", "mean_"), [0.0] * 64, "not the baseline's"),
        (("median_window",), 0, "median_frames is 0"),
    ],
)
def test_other_content_is_one_sentence(content, tmp_path, path, value, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        convert(changed(content, *path, value=value), tmp_path / "baseline")
    assert "\n" not in str(caught.value) and "baseline" in str(caught.value)


class Evil:
    def __reduce__(self):
        return warnings.warn, ("code of the file ran",)


def test_other_files_are_one_sentence_and_none_runs_code(content, tmp_path, recwarn):
    path = tmp_path / "file"
    with pytest.raises(CheckpointError, match="there is no file"):
        read_file(path)
    for written in (b"", b"not a pickle", b"PK\x03\x04 cut"):
        path.write_bytes(written)
        with pytest.raises(CheckpointError, match="it is not a file of torch.save") as caught:
            read_file(path)
        assert "\n" not in str(caught.value)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds a list"):
        read_file(path)
    torch.save(content | {"desed": Evil()}, path)
    with pytest.raises(CheckpointError, match="would call _warnings.warn") as caught:
        read_file(path)
    assert "\n" not in str(caught.value)
    assert not any("code of the file ran" in str(warning.message) for warning in recwarn)
    with pytest.raises(ValueError, match="is a folder"):
        import_dcase20.main([str(path), str(tmp_path)])
