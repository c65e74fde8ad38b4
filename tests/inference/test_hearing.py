"""A result that shows itself in a notebook."""

from __future__ import annotations

import base64
import io
import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import soundfile
from data.recordings import burst, write
from PIL import Image

from task_aware import Predictor
from task_aware.data.labels import Event
from task_aware.inference.hearing import Hearing
from task_aware.inference.outputs import Outputs, Wanted
from task_aware.inference.recordings import Recording
from task_aware.inference.result import REST, kept_sources

NOTEBOOK = Path(__file__).parents[2] / "examples/quickstart.ipynb"


def hearing(predictor: Predictor, tmp_path: Path, name: str = "a.wav") -> Hearing:
    return predictor.hear(write(tmp_path / name, burst(3.0, lead=0.5, tail=0.5)))


def test_a_separator_s_sources_are_those_it_heard_and_sum_to_the_recording(class_separator, tmp_path):
    predictor = Predictor(class_separator, window_seconds=2.0, overlap_seconds=0.5)
    found = hearing(predictor, tmp_path)
    assert list(found.sources) == [*{event.label: None for event in found.events}, REST]
    np.testing.assert_allclose(sum(found.sources.values()), found.recording, atol=1e-4)
    samples, rate = soundfile.read(tmp_path / "a.wav")
    assert found.events == predictor.detect(samples, rate) == predictor.hear(samples, rate).events
    assert found.alone is not None and found.seconds == 4.0


def test_of_a_detected_class_those_slots_are_kept_in_which_the_detector_hears_it():
    sources = {"Cat": "Cat", "Cat_2": "Cat", "Dog": "Dog", "Dog_2": "Dog", REST: REST}
    events = [Event(0, 1, "Dog"), Event(0, 2, "Cat"), Event(3, 4, "Dog")]
    heard = {"Cat": 0.2, "Cat_2": 0.4, "Dog": 0.5, "Dog_2": 0.9}
    assert kept_sources(events, sources, heard, 0.5) == ("Dog", "Dog_2", "Cat_2", REST)
    assert kept_sources(events, sources, heard, 0.51) == ("Dog_2", "Cat_2", REST)
    assert kept_sources(events, sources, {}, 0.5) == ("Dog", "Dog_2", "Cat", "Cat_2", REST)
    assert kept_sources(events[1:2], sources, dict.fromkeys(sources, 0.0), 0.5) == ("Cat", REST)
    assert kept_sources([], sources, heard, 0.5) == (REST,)
    assert kept_sources(events, {"source_1": "source_1"}, {}, 0.5) == ("source_1",)


def test_slots_that_were_heard_and_the_rest_sum_to_the_recording(slotted_separator, tmp_path):
    predictor = Predictor(slotted_separator, window_seconds=2.0, overlap_seconds=0.5)
    found = hearing(predictor, tmp_path)
    assert len(predictor.source_names) == 21 and any(name.endswith("_2") for name in found.sources)
    np.testing.assert_allclose(sum(found.sources.values()), found.recording, atol=1e-4)
    outputs = Outputs(tmp_path, Wanted(audio=True, sources=predictor.source_labels, layout="s5"))
    names = [path.name for path in outputs.sources(Recording(tmp_path / "a.wav", "a.wav", "a")).values()]
    label = predictor.labels[0]
    assert names[:2] == [f"a_0_{label}.wav", f"a_1_{label}.wav"] and len(set(names)) == 21
    assert list(outputs.kept_sources(found)) == [name for name in found.sources if name != REST]


def test_the_detector_s_own_events_are_those_of_the_detector_alone(class_separator, tmp_path):
    found = hearing(Predictor(class_separator, median_frames=1), tmp_path)
    alone = hearing(Predictor(class_separator.detector, median_frames=1), tmp_path)
    assert found.alone == alone.events and alone.alone is None and not alone.sources


@pytest.mark.parametrize("name", ["separator", "detector"])
def test_it_shows_a_picture_players_and_a_table(class_separator, tmp_path, name):
    predictor = Predictor(class_separator if name == "separator" else class_separator.detector)
    found = hearing(predictor, tmp_path, "<b>'x'.wav")
    text = found._repr_html_()
    assert "<b>" not in text and "<b>'x'.wav" in unescape(text)
    urls = [base64.b64decode(each) for each in re.findall(r'src="data:[^;]+;base64,([^"]+)"', text)]
    picture = Image.open(io.BytesIO(urls[0]))
    assert picture.size[0] > 500 and np.ptp(np.asarray(picture.convert("L"))) > 200
    assert len(urls) == 2 + len(found.sources)
    samples, rate = soundfile.read(io.BytesIO(urls[1]))
    np.testing.assert_allclose(samples, found.recording, atol=1e-4)
    assert rate == found.sample_rate
    assert text.count("<tr>") == 2 + 1 + len(found.sources) + len(found.events)


def test_events_become_a_table_of_pandas(class_separator, tmp_path):
    pytest.importorskip("pandas")
    found = hearing(Predictor(class_separator), tmp_path)
    table = found.to_dataframe()
    assert list(table.columns) == ["onset", "offset", "event_label"]
    assert [Event(*row) for row in table.itertuples(index=False)] == found.events


def test_samples_need_their_rate(class_separator):
    with pytest.raises(ValueError, match="sample_rate is missing; give it with a waveform"):
        Predictor(class_separator).hear(np.zeros(16000, np.float32))


def test_the_notebook_s_code_runs(tiny_corpus, monkeypatch):
    pytest.importorskip("pandas")
    monkeypatch.setattr("task_aware.synthesis.builtin_corpus", lambda **_: tiny_corpus)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert not cell["outputs"], "commit the notebook without outputs"
            exec("".join(cell["source"]), names)
    assert isinstance(names["result"], Hearing)
