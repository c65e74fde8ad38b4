"""`python -m task_aware.score_sources` on sets in the layout of DCASE 2026 task 4."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from data.recordings import burst
from data.recordings import write as write_recording

from task_aware import infer, score_sources, verify_data
from task_aware.base.errors import DataError
from task_aware.base.tables import read_rows
from task_aware.data.scenes import read_scenes
from task_aware.scoring import capi_sdri

RATE = 32000


@pytest.fixture
def data(tmp_path) -> Path:
    """Three mixtures: of two sources of one class and one of another, of one source, and of none."""
    generator = np.random.default_rng(1)
    for folder in ("soundscape", "oracle_target", "estimates"):
        (tmp_path / folder).mkdir()
    for name, labels in {"m_1": ["Speech", "Speech", "Pour"], "m_10": ["Pour"], "m_2": []}.items():
        sources = 0.1 * generator.standard_normal((len(labels), 400))
        mixture = sources.sum(0) + 0.05 * generator.standard_normal(400)
        second = generator.standard_normal(400)  # channel, which does not count
        write(tmp_path / "soundscape" / f"{name}.wav", np.stack([mixture, second], axis=1))
        for number, (label, source) in enumerate(zip(labels, sources, strict=True)):
            write(tmp_path / "oracle_target" / f"{name}_{number}_{label}.wav", source)
    return tmp_path


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    soundfile.write(path, samples, rate, subtype="DOUBLE")


def scores(data: Path) -> tuple[dict[str, float], list[list[str]]]:
    score_sources.main([str(data / "estimates"), "--data", str(data), "--classes", "s5"])
    out = data / "estimates-scores"
    return json.loads((out / "metrics.json").read_text()), [row for _, row in read_rows(out / "sources.tsv")][1:]


def test_the_mean_over_mixtures_that_score(data, capsys):
    """Sources of one class in another order are the same; a false alarm and a miss count 0; silence scores nothing."""
    read = {path.name: soundfile.read(path)[0] for path in (data / "oracle_target").iterdir()}
    noise = 0.01 * np.random.default_rng(2).standard_normal(400)
    write(data / "estimates" / "m_1_0_Speech.wav", read["m_1_1_Speech.wav"] + noise)
    write(data / "estimates" / "m_1_1_Speech.wav", read["m_1_0_Speech.wav"] - noise)
    write(data / "estimates" / "m_10_Dishes.wav", noise)
    metrics, rows = scores(data)
    mixture = soundfile.read(data / "soundscape/m_1.wav")[0][:, 0]
    expected = capi_sdri(
        [read["m_1_1_Speech.wav"] + noise, read["m_1_0_Speech.wav"] - noise],
        ["Speech", "Speech"],
        [read[f"m_1_{k}_{label}.wav"] for k, label in enumerate(("Speech", "Speech", "Pour"))],
        ["Speech", "Speech", "Pour"],
        mixture,
    )
    assert expected is not None and expected > 5
    assert metrics["capi_sdri_db"] == pytest.approx(expected / 2, abs=1e-3)  # m_10: a miss and a false alarm, 0 dB
    assert (metrics["mixtures"], metrics["mixtures_that_score"]) == (3, 2)
    assert metrics["label_accuracy_of_mixtures"] == pytest.approx(1 / 3)
    assert metrics["label_accuracy_of_sources"] == pytest.approx(2 / 5)
    assert [row[0] for row in rows] == ["m_1", "m_10", "m_2"] and rows[2] == ["m_2", "", "", ""]
    assert "dB over 2 mixtures; 1 more are silence" in capsys.readouterr().out


def test_estimates_of_another_length_or_rate_are_named(data):
    for samples, rate in ((np.zeros(399), RATE), (np.zeros(400), 16000)):
        write(data / "estimates" / "m_10_Pour.wav", samples, rate)
        with pytest.raises(DataError, match=r"m_10_Pour.wav has \d+ samples at .* write it in the length and rate"):
            scores(data)


def test_verify_data_knows_the_layout(data, capsys):
    verify_data.main([str(data)])
    printed = capsys.readouterr().out
    assert "3 mixtures" in printed and "score_sources" in printed
    assert [line.split() for line in printed.splitlines() if line.startswith(("Pour", "Speech"))] == [
        ["Pour", "2", "0"],
        ["Speech", "2", "1"],
    ]
    write(data / "oracle_target" / "m_10_0_Pour.wav", np.zeros(399))
    (data / "soundscape" / "m_2.wav").write_bytes(b"RIFF")
    with pytest.raises(SystemExit, match="1"):
        verify_data.main([str(data)])
    printed = capsys.readouterr().out
    assert "m_10_0_Pour.wav has 0.0125 s" in printed and "m_2.wav" in printed


def infer_of(*arguments: object) -> int:
    """The exit status of `infer`."""
    try:
        infer.main([str(argument) for argument in ("--threshold", "0.3", *arguments)])
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def test_sources_in_the_layout_of_dcase_2026(class_separator, tmp_path):
    """As long and at the same rate as the recording, numbered, only what was heard, and read back by `read_scenes`."""
    class_separator.save(tmp_path / "separator.safetensors")
    folder = tmp_path / "data/soundscape"
    write_recording(folder / "eval_1.wav", np.repeat(burst(3.0, lead=0.5), 3)[:-7], 44100)
    write_recording(folder / "eval_10.wav", burst(2.0, seed=1))
    command = (tmp_path / "separator.safetensors", folder, "--out", tmp_path / "out", "--audio", "--audio-layout", "s5")
    assert infer_of(*command) == 0
    found = read_scenes(tmp_path / "data", tmp_path / "out/audio", class_separator.detector.labels)
    assert any(scene.sources for scene in found)
    for scene in found:
        events = [row for _, row in read_rows(tmp_path / f"out/events/{scene.name}.tsv")][1:]
        assert sorted(source.label for source in scene.sources) == sorted({row[2] for row in events})
        given = soundfile.info(scene.path)
        for source in scene.sources:
            written = soundfile.info(source.path)
            assert (written.frames, written.samplerate) == (given.frames, given.samplerate)
    assert infer_of(*command, "--skip-existing") == 0
    removed = next(source.path for scene in found for source in scene.sources)
    removed.unlink()
    assert infer_of(*command, "--skip-existing") == 0 and removed.is_file()


def test_the_probabilities_of_a_submission_to_dcase_2026(slotted_separator, tmp_path):
    """In the form of the challenge's `eval_results.json`, for just the files that there are, also after another run."""
    slotted_separator.save(tmp_path / "separator.safetensors")
    for name, seconds in (("eval_1", 3.0), ("eval_2", 2.0)):
        write_recording(tmp_path / f"in/{name}.wav", burst(seconds, lead=0.5))
    out = tmp_path / "out"
    command = (tmp_path / "separator.safetensors", tmp_path / "in", "--out", out, "--audio", "--audio-layout", "s5")
    counts = []
    for threshold in ("0.5", "0.9"):
        assert infer_of(*command, "--threshold", threshold) == 0
        results = json.loads((out / "eval_results.json").read_text())
        assert results["nparams"] == sum(each.numel() for each in slotted_separator.parameters())
        assert [each["soundscape"] for each in results["probabilities"]] == ["eval_1", "eval_2"]
        estimates = [each for scene in results["probabilities"] for each in scene["estimate"]]
        assert {each["filename"] for each in estimates} == {path.name for path in (out / "audio").iterdir()}
        for each in estimates:
            assert each["filename"].endswith(f"_{each['label']}.wav") and 0 < each["probability"] <= 1
        counts.append(len(estimates))
    assert counts[0] > counts[1]


def test_free_sources_have_no_layout_of_classes(small_separator, tmp_path):
    small_separator.save(tmp_path / "separator.safetensors")
    recording = write_recording(tmp_path / "a.wav", burst(2.0))
    with pytest.raises(ValueError, match="the layout s5 needs a separator with sources of classes"):
        infer_of(tmp_path / "separator.safetensors", recording, "--out", tmp_path, "--audio", "--audio-layout", "s5")
