import pytest
import soundfile
import torch
from data.recordings import burst

from task_aware.base.errors import RecordingError
from task_aware.data import Clip, Split
from task_aware.models.features import FeatureConfig
from task_aware.scoring.evaluation import batches_of


def test_a_cut_off_clip_is_not_scored(tmp_path):
    soundfile.write(tmp_path / "cut.wav", burst(4.0), 16000)
    content = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(content[: len(content) // 2])
    split = Split("validation", (Clip(tmp_path / "cut.wav", (), None, "cut.wav"),), (), tmp_path / "validation.tsv")
    with pytest.raises(RecordingError, match="cut.wav is truncated"):
        list(batches_of(split, FeatureConfig(), device=torch.device("cpu"), progress=False))
