"""`python -m task_aware.overlay`: pairs of validation clips, read back as a data set."""

from __future__ import annotations

import numpy as np
import pytest

from task_aware import overlay
from task_aware.base.errors import DataError
from task_aware.data import desed, overlays, read_audio, read_split
from task_aware.data.labels import Event


def test_events_of_a_class_that_overlap_or_touch_are_one():
    events = [Event(4, 6, "Dog"), Event(1, 3, "Dog"), Event(3, 4, "Dog"), Event(7, 8, "Dog"), Event(2, 5, "Cat")]
    assert overlays.union(events) == [Event(1, 6, "Dog"), Event(2, 5, "Cat"), Event(7, 8, "Dog")]
    assert overlays.union([Event(1, 9, "Dog"), Event(2, 3, "Dog")]) == [Event(1, 9, "Dog")]


def test_every_clip_is_in_one_pair(tiny_corpus, tmp_path):
    overlay.main([f"--data={tiny_corpus}", f"--out={tmp_path}"])
    clips = read_split(tiny_corpus, "validation").clips
    pairs = read_split(tmp_path, "validation").clips
    assert len(pairs) == len(clips) // 2
    single = {clip.filename: read_audio(clip.path) for clip in clips}
    used = []
    for pair in pairs:
        mixture = read_audio(pair.path)
        found = [
            (a.filename, b.filename)
            for a in clips
            for b in clips
            if a.filename < b.filename
            and np.allclose(mixture, single[a.filename] + single[b.filename], atol=1e-4)
            and overlays.union([*a.events, *b.events]) == list(pair.events)
        ]
        assert len(found) == 1
        used += found[0]
    assert len(set(used)) == len(used)
    with pytest.raises(DataError, match="validation.tsv exists already; give another --out"):
        overlay.main([f"--data={tiny_corpus}", f"--out={tmp_path}"])


def test_what_an_unfinished_run_left_does_not_stay_beside_the_pairs_of_another(tiny_corpus, tmp_path, monkeypatch):
    arguments = [f"--data={tiny_corpus}", f"--out={tmp_path}"]
    monkeypatch.setattr(desed, "write_events", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        overlay.main(arguments)
    monkeypatch.undo()
    left = tmp_path / "audio/validation/pair_9999.flac"
    left.touch()
    overlay.main([*arguments, "--seed=1"])
    assert not left.exists() and '"seed": 1' in (tmp_path / "overlay.json").read_text()
    assert {clip.filename for clip in read_split(tmp_path, "validation").clips} == {
        path.name for path in left.parent.iterdir()
    }
