import pytest
import soundfile
import torch
from data.recordings import burst

from task_aware.base.errors import RecordingError
from task_aware.data import Clip, Split
from task_aware.data.labels import Event
from task_aware.models.features import FeatureConfig
from task_aware.scoring.evaluation import SEPARATED, batches_of
from task_aware.scoring.metrics import event_f1, segment_f1
from task_aware.scoring.report import table, write_split_labels


def test_a_cut_off_clip_is_not_scored(tmp_path):
    soundfile.write(tmp_path / "cut.wav", burst(4.0), 16000)
    content = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(content[: len(content) // 2])
    split = Split("validation", (Clip(tmp_path / "cut.wav", (), None, "cut.wav"),), (), tmp_path / "validation.tsv")
    with pytest.raises(RecordingError, match="cut.wav is truncated"):
        list(batches_of(split, FeatureConfig(), device=torch.device("cpu"), progress=False))


def test_labels_of_a_split_stand_beside_the_detections(tmp_path):
    clips = tuple(Clip(tmp_path / name, (Event(0.5, 1.0, "Dog"),), None, name) for name in ("a.wav", "a.flac", "b.wav"))
    split = Split("validation", clips, (), tmp_path / "validation.tsv")
    detections = {SEPARATED: {clip.filename: [Event(0.6, 1.25, "Cat")] for clip in clips}}
    write_split_labels(tmp_path, "audacity", split, detections, dict.fromkeys(split.reference, 10.0), 8000.0)
    stems = ("a.wav", "a.flac", "b")
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{stem}.{kind}.txt" for stem in stems for kind in ("reference", "separated")
    }
    assert (tmp_path / "b.reference.txt").read_text() == "0.500\t1.000\tDog\n"
    assert (tmp_path / "b.separated.txt").read_text() == "0.600\t1.250\tCat\n"


@pytest.mark.parametrize("count", [60, 61])
def test_a_table_of_very_many_classes_has_no_row_for_each(count):
    labels = [f"class {k}" for k in range(count)]
    found = {"a.wav": [Event(0.0, 1.0, label) for label in labels]}
    scores = {"event": event_f1(found, found, labels), "segment": segment_f1(found, found, labels)}
    text = table({SEPARATED: scores})
    assert ("class 7 " in text) == (count == 60) and ("61 classes; metrics.json has each" in text) == (count == 61)
    assert "event F1, macro              100.0" in text
