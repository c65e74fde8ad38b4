"""The layout of DCASE 2026 task 4: mixtures, and a file for each source."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from task_aware.base.errors import DataError
from task_aware.data.scenes import S5_CLASSES, Scene, is_scenes, read_scenes, source_name


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, np.zeros(8), 32000)
    return root


def labels(scenes: list[Scene]) -> dict[str, list[str]]:
    return {scene.name: [source.label for source in scene.sources] for scene in scenes}


def test_a_source_belongs_to_the_longest_name_that_it_begins_with(tmp_path):
    """eval_1 does not take the sources of eval_10 or eval_1_b, whatever stands in the file names."""
    make(tmp_path, *(f"soundscape/{name}.wav" for name in ("eval_1", "eval_10", "eval_1_b", "eval_2")))
    make(tmp_path / "oracle_target", "eval_1_0_Speech.wav", "eval_1_1_Speech.wav", "eval_10_Dishes.wav")
    make(tmp_path / "oracle_target", "eval_1_b_2_Alarm_bell.wav", "eval_1_Pour.wav")
    assert is_scenes(tmp_path) and not is_scenes(tmp_path / "oracle_target")
    assert labels(read_scenes(tmp_path)) == {
        "eval_1": ["Speech", "Speech", "Pour"],
        "eval_10": ["Dishes"],
        "eval_1_b": ["Alarm_bell"],
        "eval_2": [],
    }


def test_what_is_written_is_read_back_bit_by_bit(tmp_path):
    make(tmp_path, "soundscape/a.wav", "soundscape/b.wav")
    generator = np.random.default_rng(0)
    written = {}
    for number, label in enumerate(("Speech", "Speech", "Vacuum_cleaner")):
        samples = generator.integers(-(2**15), 2**15, 50, dtype=np.int16)
        path = tmp_path / "estimates" / source_name("a", number, label)
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, samples, 32000)
        written[path] = (label, samples)
    a, b = read_scenes(tmp_path, tmp_path / "estimates")
    assert [source.path for source in a.sources] == list(written) and not b.sources
    for source in a.sources:
        label, samples = written[source.path]
        assert source.label == label
        np.testing.assert_array_equal(soundfile.read(source.path, dtype="int16")[0], samples)


@pytest.mark.parametrize("label", ["", "a/b", "2_a"])
def test_a_class_that_could_not_be_read_back_is_not_written(label):
    with pytest.raises(DataError, match="rename it"):
        source_name("a", 0, label)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["oracle_target/a_Pour.wav"], "soundscape is not a folder"),
        (["soundscape/a.wav"], "oracle_target is not a folder"),
        (["soundscape/.a.wav", "oracle_target/a_Pour.wav"], "there are no recordings (.wav) in"),
        (["soundscape/a.wav", "oracle_target/b_Pour.wav"], "b_Pour.wav belongs to none of the 1 mixtures"),
        (["soundscape/a.wav", "oracle_target/a_.wav"], "a_.wav belongs to none"),
        (["soundscape/a.wav", "oracle_target/a_0_Rain.wav"], "is of the class Rain; the classes are AlarmClock,"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, files, sentence):
    make(tmp_path, *files)
    with pytest.raises(DataError, match=re.escape(sentence)):
        read_scenes(tmp_path, labels=S5_CLASSES)
