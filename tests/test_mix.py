"""`python -m task_aware.mix`: what it writes is read back as a data set, and sums up."""

from __future__ import annotations

import json

import numpy as np
import pytest

from task_aware import evaluate, mix
from task_aware.base.errors import DataError
from task_aware.data import read_audio, read_split, soundscapes
from task_aware.data.mixing_config import MixingConfig
from task_aware.models.opening import BUILTIN_DETECTOR

IMAGES = "audio/train/synthetic20/images"


def run(corpus, out, *options: str) -> dict:
    mix.main([f"--data={corpus}", f"--out={out}", "--seconds=2", *options])
    return json.loads((out / "mix.json").read_text())


def contents(folder) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_soundscapes_are_the_sum_of_their_images(tiny_corpus, tmp_path):
    recipe = run(tiny_corpus, tmp_path, "-n=6", "--mixing.n_events=[2,3]", "--seed=3")
    assert recipe["seed"] == 3 and recipe["mixing"]["n_events"] == [2, 3]
    split = read_split(tmp_path, "synthetic")
    assert [clip.filename for clip in split.clips] == [f"{k:05d}.wav" for k in range(6)]
    for clip in split.clips:
        parts = {path.stem: read_audio(path) for path in (tmp_path / IMAGES / clip.path.stem).iterdir()}
        assert parts.keys() == {event.label for event in clip.events} | {"background"}
        assert 2 <= len(parts) - 1 <= 3
        mixture = read_audio(clip.path)
        assert len(mixture) == 32000
        assert np.array_equal(mixture, sum(parts.values()))
        for event in clip.events:
            image = np.square(parts[event.label])
            sounding = image[round(event.onset * 16000) : round(event.offset * 16000) + 4000]
            assert sounding.sum() > 0.5 * image.sum() > 0


def test_a_second_source_of_a_class_has_a_name_of_its_own(tiny_corpus, tmp_path):
    run(tiny_corpus, tmp_path, "-n=6", "--mixing.n_events=[2,2]", "--mixing.dupse_rate=1")
    for clip in read_split(tmp_path, "synthetic").clips:
        parts = {path.stem: read_audio(path) for path in (tmp_path / IMAGES / clip.path.stem).iterdir()}
        (label,) = {event.label for event in clip.events}
        assert parts.keys() == {label, f"{label}_2", "background"}
        assert np.array_equal(read_audio(clip.path), sum(parts.values()))
    assert soundscapes._names(["Cat", "Cat", "Cat_2", "Cat_2"]) == ["Cat", "Cat_3", "Cat_2", "Cat_2_2"]


def test_a_seed_gives_the_same_files_and_is_not_overwritten(tiny_corpus, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tiny_corpus, tmp_path / name, "-n=5", f"--seed={seed}")
    a, b, c = (
        [path.read_bytes() for path in sorted((tmp_path / name).rglob("*.*")) if path.is_file()] for name in "abc"
    )
    assert a == b != c
    with pytest.raises(DataError, match="soundscapes.tsv exists already; give another --out"):
        run(tiny_corpus, tmp_path / "a")


def test_a_mix_after_an_interrupted_one_is_what_it_is_alone(tiny_corpus, tmp_path, monkeypatch):
    out, write, written = tmp_path / "out", soundscapes.write_soundscape, []

    def stop_at_the_fourth(folder, name, soundscape):
        if len(written) == 3:
            (folder / "soundscapes" / f".{name}.wav.123.tmp").touch()  # as after a kill
            raise KeyboardInterrupt
        written.append(name)
        write(folder, name, soundscape)

    monkeypatch.setattr(soundscapes, "write_soundscape", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_corpus, out, "-n=8", "--plot")
    monkeypatch.setattr(soundscapes, "write_soundscape", write)
    assert json.loads((out / "mix.json").read_text())["number"] == 8 and list((out / IMAGES).rglob("*.wav"))
    note = out / IMAGES / "00000" / "note.txt"
    note.write_text("mine")
    before = contents(out)
    with pytest.raises(DataError, match=r"note.txt is there already, but not from an unfinished run; give another"):
        run(tiny_corpus, out, "-n=2", "--seed=1")
    assert contents(out) == before
    note.unlink()
    run(tiny_corpus, out, "-n=2", "--seed=1")
    run(tiny_corpus, tmp_path / "alone", "-n=2", "--seed=1")
    assert contents(out) == contents(tmp_path / "alone")


def test_recordings_of_others_are_not_taken_for_an_unfinished_mix(tiny_corpus, tmp_path):
    own = tmp_path / "audio/train/synthetic20/soundscapes/00000.wav"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(DataError, match=r"00000.wav is there already"):
        run(tiny_corpus, tmp_path, "-n=2")
    assert contents(tmp_path) == {own.relative_to(tmp_path).as_posix(): b"mine"}


def test_what_is_beyond_full_scale_is_turned_down_with_its_images(tiny_corpus, tmp_path, capsys):
    run(tiny_corpus, tmp_path, "-n=3", "--mixing.gain_db=[45,45]")
    assert "3 of 3 mixtures exceeded full scale and were turned down" in capsys.readouterr().out
    for clip in read_split(tmp_path, "synthetic").clips:
        parts = [read_audio(path) for path in (tmp_path / IMAGES / clip.path.stem).iterdir()]
        mixture = read_audio(clip.path)
        assert max(np.abs(x).max() for x in (mixture, *parts)) == pytest.approx(0.999, abs=2e-4)
        assert np.array_equal(mixture, sum(parts))


def test_recipes_and_pictures(tiny_corpus, tmp_path):
    recipe = run(tiny_corpus, tmp_path / "out", "--config=paper", "--number=2", "--plot", "--mixing.reverb=false")
    expected = json.loads(json.dumps({**vars(MixingConfig.paper()), "reverb": False}))
    assert recipe["mixing"] == expected
    assert len(list((tmp_path / "out" / IMAGES).glob("*/mixture.png"))) == 2
    own = tmp_path / "own.yaml"
    own.write_text("mixing: {n_events: [1, 1]}\nworkers: 3\nseed: 5\n")
    assert run(tiny_corpus, tmp_path / "own", f"--config={own}", "-n=1")["mixing"]["n_events"] == [1, 1]
    own.write_text("mixin: {n_events: [1, 1]}\n")
    with pytest.raises(SystemExit):
        run(tiny_corpus, tmp_path / "mistake", f"--config={own}", "-n=1")


def test_other_commands_take_the_folder(tiny_corpus, tmp_path):
    mix.main([f"--data={tiny_corpus}", f"--out={tmp_path}", "-n=2"])
    evaluate.main([str(BUILTIN_DETECTOR), f"--data={tmp_path}", "--split=synthetic", f"--out={tmp_path / 'e'}"])
    assert (tmp_path / "e/metrics.json").is_file()


def test_mistakes_are_one_sentence(tiny_corpus, tmp_path):
    with pytest.raises(ValueError, match="--number is 0; give at least 1"):
        run(tiny_corpus, tmp_path, "-n=0")
    with pytest.raises(ValueError, match="mixing.n_events must be two finite numbers, the lower one first"):
        run(tiny_corpus, tmp_path, "--mixing.n_events=[3,2]")
    with pytest.raises(DataError, match="is not a folder"):
        run(tmp_path / "absent", tmp_path / "out")
