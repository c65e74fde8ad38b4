from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from task_aware.base import checkpoint
from task_aware.base.errors import CheckpointError


def test_tensors_and_content_come_back(tmp_path):
    path = tmp_path / "folder" / "file.safetensors"
    checkpoint.write(path, "detector", {"a": torch.arange(3)}, {"b": [1, None, "x"]})
    tensors, content = checkpoint.read(path, "detector")
    assert torch.equal(tensors["a"], torch.arange(3)) and content == {"b": [1, None, "x"]}
    assert checkpoint.kind_of(path) == "detector"
    assert [file.name for file in path.parent.iterdir()] == ["file.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.safetensors"
    checkpoint.write(path, "detector", {"a": torch.ones(1)}, {})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.write(path, "detector", {"a": torch.zeros(1)}, {})
    assert checkpoint.read(path, "detector")[0]["a"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_flattening_keeps_keys_containers_and_tensors():
    tree = {"loops": {0: [1, 2.5, (torch.ones(2), None)]}, "state": OrderedDict(a=True), "best": float("inf")}
    tensors: dict[str, torch.Tensor] = {}
    back = checkpoint.unflatten(checkpoint.flatten(tree, tensors), tensors)
    assert back["loops"][0][:2] == [1, 2.5] and isinstance(back["loops"][0][2], tuple)
    assert torch.equal(back["loops"][0][2][0], torch.ones(2)) and back["loops"][0][2][1] is None
    assert back["state"] == {"a": True} and back["best"] == float("inf")
    with pytest.raises(TypeError, match="not set"):
        checkpoint.flatten({1, 2}, {})


def test_a_file_that_was_cut_off_is_one_sentence(tmp_path):
    path = tmp_path / "file.safetensors"
    checkpoint.write(path, "detector", {"a": torch.randn(1000)}, {})
    whole = path.read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="not a complete safetensors file"):
            checkpoint.read(path, "detector")


def test_a_missing_foreign_or_newer_file_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        checkpoint.read(tmp_path / "absent.safetensors", "detector")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.ones(1)}, foreign)
    with pytest.raises(CheckpointError, match="not one written by task_aware"):
        checkpoint.read(foreign, "detector")
    other = tmp_path / "other.safetensors"
    checkpoint.write(other, "separator", {}, {})
    with pytest.raises(CheckpointError, match="is a separator checkpoint, but a detector is needed"):
        checkpoint.read(other, "detector")
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    checkpoint.write(other, "separator", {}, {})
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    with pytest.raises(CheckpointError, match="reads formats up to 1; upgrade task_aware"):
        checkpoint.read(other, "separator")


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("task_aware", "[]"),
        ("task_aware", '{"format": "1", "kind": "detector"}'),
        ("task_aware", '{"format": 1}'),
        ("content", "[" * 10000),
        ("content", "9" * 5000),
        ("content", "null"),
    ],
)
def test_a_description_that_is_none_is_one_sentence(tmp_path, part, text):
    metadata = {"task_aware": '{"format": 1, "kind": "detector"}', "content": "{}"} | {part: text}
    save_file({"a": torch.ones(1)}, tmp_path / "file.safetensors", metadata)
    with pytest.raises(CheckpointError, match="not one written by task_aware"):
        checkpoint.read(tmp_path / "file.safetensors", "detector")


def test_sizes_that_do_not_fit_take_no_memory(tmp_path):
    made = []

    def make() -> torch.nn.Module:
        made.append(torch.nn.Linear(1 << 22, 1 << 22))
        return made[-1]

    with pytest.raises(CheckpointError, match=r"the shape of weight is \[2, 2\] instead of \[4194304, 4194304\]"):
        checkpoint.build(make, {"weight": torch.ones(2, 2), "bias": torch.ones(2)}, "x.safetensors")
    assert [module.weight.device.type for module in made] == ["meta"]


def test_an_error_is_one_line_whatever_it_names():
    assert "\n" not in str(CheckpointError("the file a\nb is missing"))
