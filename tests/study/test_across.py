"""`python -m task_aware.across`: separators before other detectors."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from task_aware.across import main
from task_aware.base.errors import CheckpointError, DataError, RecordingError
from task_aware.data.desed import read_split
from task_aware.models.detector import features_of
from task_aware.scoring.evaluation import DETECTOR_ONLY, SEPARATED, detect_split
from task_aware.scoring.metrics import event_counts
from task_aware.study import across
from task_aware.study.across import System


@pytest.fixture
def other_detector(small_detector):
    """Of the same sizes, with another scaler and other weights in its last layer."""
    other = copy.deepcopy(small_detector)
    with torch.no_grad():
        other.mean.add_(4.0)
        other.dense.weight.neg_()
    return other


def test_before_its_own_detector_a_separator_counts_as_it_does_elsewhere(tiny_corpus, small_separator):
    split = read_split(tiny_corpus, "validation", small_separator.detector.labels)
    cpu = torch.device("cpu")
    counts = across.count(split, {"own": small_separator.detector}, {"s": [small_separator]}, cpu)
    detections = detect_split(small_separator, split, device=cpu)
    for system, name in ((System(None, 0, "own"), DETECTOR_ONLY), (System("s", 0, "own"), SEPARATED)):
        wanted = event_counts(split.reference, detections[name], small_separator.detector.labels)
        assert wanted[..., 1].sum() > 0
        np.testing.assert_array_equal(counts[system], wanted)


def test_another_detector_hears_the_same_sources_with_its_own_scaler(small_separator, other_detector):
    mel = torch.rand(2, 32, 20)
    detector = small_separator.detector
    alone = other_detector(features_of(other_detector, mel)).frame
    sources = small_separator.separate(mel).mel
    frames = [other_detector(features_of(other_detector, sources[:, s])).frame for s in range(3)]
    wanted = 0.5 * (alone + torch.stack(frames).amax(0))
    with torch.no_grad():
        torch.testing.assert_close(across.hear(other_detector, sources, alone, small_separator), wanted)
        assert not torch.equal(across.hear(detector, sources, alone, small_separator), wanted)


def test_the_change_is_the_mean_over_detectors():
    def found(correct: int) -> np.ndarray:  # ten clips of one event each, one class
        return np.array([[[1, 1, int(clip < correct)]] for clip in range(10)])

    counts = {
        System(None, 0, "a"): found(4),
        System(None, 0, "b"): found(6),
        System("s", 0, "a"): found(7),
        System("s", 1, "a"): found(9),
        System("s", 0, "b"): found(6),
        System("s", 1, "b"): found(6),
    }
    header, _, alone, separated = across.compare(counts, resamples=50)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, alone, separated)]
    assert cells[0][2:4] == ["a", "b"]
    assert cells[1] == ["detector alone", "1", "40.0", "60.0", ""]
    assert cells[2][:4] == ["s", "2", "80.0 ± 14.1", "60.0 ± 0.0"]
    assert cells[2][4].startswith("+20.0 [+")


def test_the_command(tiny_corpus, small_separator, other_detector, tmp_path, capsys):
    for seed in (0, 1):
        (tmp_path / f"row/seed{seed}").mkdir(parents=True)
        small_separator.save(tmp_path / f"row/seed{seed}/separator.safetensors")
    other_detector.save(tmp_path / "other.safetensors")
    command = [
        f"--detectors={tmp_path}/other.safetensors",
        f"--separators={tmp_path}/row",
        f"--data={tiny_corpus}",
        "--resamples=20",
        "--accelerator=cpu",
    ]
    main(command)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"clips of {tiny_corpus}")
    assert lines[-2].startswith(f"| {tmp_path}/row ") and " 2 |" in lines[-2]
    with pytest.raises(RecordingError, match="channel"):
        main([*command, "--channel=7"])
    with pytest.raises(CheckpointError, match=r"there is no separator.safetensors in .*nothing"):
        main([*command, f"--separators={tmp_path}/nothing"])


def test_a_folder_without_clips_is_refused(small_separator, tmp_path):
    small_separator.save(tmp_path / "separator.safetensors")
    small_separator.detector.save(tmp_path / "detector.safetensors")
    table = tmp_path / "data/metadata/validation/validation.tsv"
    table.parent.mkdir(parents=True)
    table.write_text("filename\tonset\toffset\tevent_label\n")
    (tmp_path / "data/audio/validation").mkdir(parents=True)
    files = [f"--detectors={tmp_path}/detector.safetensors", f"--separators={tmp_path}/separator.safetensors"]
    with pytest.raises(DataError, match="has a header but no rows"):
        main([*files, f"--data={tmp_path}/data"])


def test_detectors_of_other_labels_are_refused(small_separator, causal_detector, tmp_path):
    small_separator.save(tmp_path / "separator.safetensors")
    causal_detector.save(tmp_path / "causal.safetensors")
    with pytest.raises(CheckpointError, match="the detector uses"):
        main([f"--detectors={tmp_path}/causal.safetensors", f"--separators={tmp_path}/separator.safetensors"])
