"""What every detector hears: one channel that has the sound, without the offset of the recording."""

import numpy as np
import pytest
import soundfile
import torch

from task_aware import LiveDetector, Predictor
from task_aware.base.errors import RecordingError
from task_aware.data.desed import Clip, Split
from task_aware.models.opening import BUILTIN_DETECTOR
from task_aware.scoring.evaluation import hear_split

RATE = 16000


def sound(seconds: float = 3.0) -> np.ndarray:
    """Faint noise and two bursts, in 16 bits."""
    generator = np.random.default_rng(0)
    samples = 0.002 * generator.normal(size=round(seconds * RATE))
    for onset in (0.5, 2.0):
        samples[round(onset * RATE) :][:8000] += 0.1 * generator.normal(size=8000)
    return (np.rint(samples * 32768) / 32768).astype(np.float32)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(BUILTIN_DETECTOR, device="cpu")


@pytest.mark.parametrize("offset", [0.005, -0.05])
def test_an_offset_changes_nothing(predictor, tmp_path, offset):
    samples = sound()
    clean = predictor.analyse_waveform(samples, RATE)
    found = predictor.analyse_waveform(samples + np.float32(offset), RATE)
    assert np.abs(found.scores - clean.scores).max() < 1e-3
    assert found.events == clean.events
    # files, and the clips of a split, are heard as arrays are
    path = tmp_path / "a.wav"
    soundfile.write(path, samples + np.float32(offset), RATE, subtype="FLOAT")
    windows = predictor.windowing.cut(predictor.read(path), "a.wav")
    ((_, of_file),) = predictor.analyse((0, window) for window in windows)
    assert np.array_equal(of_file.scores, found.scores)
    split = Split("validation", (Clip(path, (), None, "a.wav"),), (), path)
    (heard,) = hear_split(predictor.model, split, device=torch.device("cpu"), progress=False)
    np.testing.assert_allclose(heard.frames["detector_only"], found.scores, atol=1e-5)


@pytest.mark.parametrize("size", [1000, 10**6])
def test_an_offset_changes_nothing_in_a_stream(causal_detector, size):
    def events(samples):
        live = LiveDetector(causal_detector, threshold=0.4)
        pieces = [samples[begin : begin + size] for begin in range(0, len(samples), size)]
        return [event for piece in pieces for event in live.push(piece)] + live.flush()

    clean = events(sound())
    assert clean and events(sound() + np.float32(0.05)) == clean


def test_a_channel_can_be_chosen_for_arrays_and_files(predictor, tmp_path, caplog):
    stereo = np.stack([sound(), -sound()])
    path = tmp_path / "opposite.wav"
    soundfile.write(path, stereo.T, RATE)
    wanted = predictor.detect(stereo[0], RATE)
    assert wanted and predictor.detect(stereo, RATE) != wanted
    assert "waveform: the mean of its 2 channels lies" in caplog.text
    first = Predictor(predictor.model, device="cpu", channel=0)
    assert first.detect(stereo, RATE) == wanted
    found = first({"path": [str(path)]})
    assert found["error"].tolist() == [""]
    assert [row["event_label"] for row in found["events"][0]] == [event.label for event in wanted]
    with pytest.raises(RecordingError, match="waveform has 2 channels, but channel 2 was requested"):
        Predictor(predictor.model, device="cpu", channel=2).detect(stereo, RATE)
