"""`import_clips`: collections of clips become data sets that the other commands take."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from task_aware import import_clips, mix, overlay, train, train_sed, verify_data
from task_aware.base.errors import DataError
from task_aware.base.tables import read_rows
from task_aware.data import Soundbank, read_audio, read_split
from task_aware.data.classes import classes_of
from task_aware.data.corpus import Corpus, stated_levels
from task_aware.data.mixing_config import MixingConfig
from task_aware.models.crnn import load_detector

from .sounds import RATE, barks, clips, write

KITCHEN = Path(__file__).parents[2] / "../shared/kitchen20"


def run(source, out, *options: str) -> int:
    try:
        import_clips.main([str(source), f"--out={out}", "--quiet", *options])
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def rows(path: Path) -> list[list[str]]:
    return [row for _, row in read_rows(path)][1:]


def test_a_folder_of_folders_becomes_a_data_set(tmp_path, capsys):
    """Of any names; a clip of two barks gives two events, and what was cut can be heard."""
    source = clips(tmp_path / "source", ("dog", "Cats, two"), 5)
    write(source / "dog" / "two.wav", barks(1.0, 3.2))
    write(source / "\u96e8 100%25" / "whole.wav", barks(noise=0.05, seconds=2.0))
    assert run(source, tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "doubts" in printed and "fewer than 20 events" in printed and "little on new ones" in printed
    assert "there are no backgrounds" in printed and "nothing is held out of \u96e8 100%" in printed
    out = tmp_path / "out"
    assert (out / "report.txt").read_text() in printed and (out / "import.png").stat().st_size > 10_000
    assert classes_of(out) == ("Cats, two", "dog", "\u96e8 100%")
    bank, weak = Soundbank(out), read_split(out, "weak")
    held = Soundbank(out / "audio/heldout")
    assert stated_levels(out / "audio/heldout") == stated_levels(out)  # further mixtures of it are as loud
    assert all(clip.path.is_symlink() for clip in weak.clips)
    assert ("Cats, two",) in {clip.labels for clip in weak.clips}
    of_two = [path for paths in (*bank.foreground.values(), *held.foreground.values()) for path in paths
              if path.stem.startswith("dog_two")]  # fmt: skip
    assert len(of_two) == 2
    folder = next(b.folder for b in (bank, held) if (b.folder / of_two[0]).exists())
    assert [len(read_audio(folder / path)) / RATE for path in of_two] == pytest.approx([0.4, 0.4], abs=0.05)
    (whole,) = bank.foreground["\u96e8 100%"]
    assert (bank.folder / whole).is_symlink()  # a reference does
    cut = [row for row in rows(out / "cuts.tsv") if row[0] == "dog/two.wav"]
    assert [row[3] for row in cut] == ["silence at the beginning", "silence between events", "silence at the end"]
    onset, offset, start = float(cut[1][1]), float(cut[1][2]), float(cut[1][5])
    original = read_audio(source / "dog/two.wav")[round(onset * RATE) : round(offset * RATE)]
    heard = read_audio(out / cut[1][4])[round(start * RATE) :][: len(original)]
    assert np.allclose(heard, original, atol=1e-4)
    scored = read_split(out, "validation")
    assert len(scored.clips) == 10 * sum(map(len, held.foreground.values()))
    assert {event.label for events in scored.reference.values() for event in events} == {"Cats, two", "dog"}
    assert not rows(out / "errors.tsv")


def test_every_command_takes_it_with_five_clips_a_class(tmp_path, capsys, short_steps):
    source = clips(tmp_path / "source", ("a / b".replace("/", "%2F"), "\u043a\u043e\u0442", "hum"), 5)
    data = tmp_path / "data"
    assert run(source, data, "--background", "hum") == 0
    verify_data.main([str(data)])
    assert "a / b" in capsys.readouterr().out
    fast = ["--fast-dev-run", "--accelerator=cpu", f"--data={data}"]
    train_sed.main([*fast, f"--out={tmp_path / 'sed'}"])
    assert load_detector(tmp_path / "sed/detector.safetensors").labels == ("a / b", "\u043a\u043e\u0442")
    train.main([*fast, *short_steps, f"--out={tmp_path / 'run'}"])
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert set(metrics["separated"]["event_f1"]) == {"a / b", "\u043a\u043e\u0442"}
    mix.main([f"--data={data}", f"--out={tmp_path / 'mix'}", "-n=3", "--seconds=2", "--plot"])
    reference = json.loads((tmp_path / "mix/mix.json").read_text())["mixing"]["reference_db"]
    levels = stated_levels(data)
    assert reference == pytest.approx(np.mean(list(levels.values())) + 6, abs=0.06)
    assert {path.name for path in tmp_path.glob("mix/audio/train/synthetic20/images/*/*.wav")} == {
        "a %2F b.wav",
        "\u043a\u043e\u0442.wav",
        "background.wav",
    }
    overlay.main([f"--data={data}", f"--out={tmp_path / 'pairs'}"])
    assert read_split(tmp_path / "pairs", "validation").clips


def test_one_class_is_enough(tmp_path, short_steps):
    assert run(clips(tmp_path / "source", ("bark",), 4), tmp_path / "data") == 0
    folders = [f"--data={tmp_path / 'data'}", f"--out={tmp_path / 'run'}"]
    train.main(["--fast-dev-run", "--accelerator=cpu", *folders, *short_steps])
    assert (tmp_path / "run/metrics.json").is_file()


def test_mixtures_are_at_the_level_of_the_data(tmp_path):
    """40 dB quieter recordings give 40 dB quieter mixtures."""
    for name, factor in (("loud", 1.0), ("quiet", 0.01)):
        for k in range(3):
            write(tmp_path / name / "dog" / f"{k}.wav", factor * barks(0.3, seconds=1.0, seed=k))
        assert run(tmp_path / name, tmp_path / f"{name}_data") == 0
    loud, quiet = (
        Corpus(tmp_path / f"{name}_data").mixer(
            MixingConfig(n_events=(1, 1), reference_db=None, reverb=False), n_sources=1, seconds=2.0, seed=0
        )
        for name in ("loud", "quiet")
    )
    difference = 20 * np.log10(loud.plan(0).gains[0] / quiet.plan(0).gains[0])
    assert difference == pytest.approx(40, abs=1.0)


def test_bad_rows_and_recordings_are_named_and_the_rest_is_imported(tmp_path, capsys):
    source = clips(tmp_path / "source", ("x",), 6)
    write(source / "x/silent.wav", np.zeros(RATE))
    (source / "x/broken.wav").write_text("no audio")
    table = tmp_path / "table.csv"
    names = [f"{k}.wav,dog" for k in range(6)]
    bad = ["gone.wav,dog", "0.wav,", "silent.wav,dog", "broken,dog", "1.wav," + 300 * "a"]
    table.write_text("\n".join(["filename,label", *names, *bad]))
    assert run(source, tmp_path / "out", f"--csv={table}") == 1
    found = {(Path(file).name, line): error for file, line, error in rows(tmp_path / "out/errors.tsv")}
    lines = {("table.csv", "8"), ("table.csv", "9"), ("table.csv", "12")}
    assert found.keys() == {*lines, ("silent.wav", ""), ("broken.wav", "")}
    assert "too long to be the name of a folder" in found["table.csv", "12"]
    assert "gone.wav is not among the recordings" in found["table.csv", "8"]
    assert "5 rows or files were not used: see" in capsys.readouterr().err
    assert sum(map(len, Soundbank(tmp_path / "out").foreground.values())) >= 4


def test_mistakes_are_one_sentence_and_leave_nothing(tmp_path):
    source = clips(tmp_path / "source", ("dog",), 3)
    with pytest.raises(DataError, match="--background names cat, but the classes are dog"):
        run(source, tmp_path / "out", "--background", "cat")
    with pytest.raises(DataError, match="--background names all classes"):
        run(source, tmp_path / "out", "--background", "dog")
    with pytest.raises(DataError, match="is not a folder; give the folder of the recordings"):
        run(tmp_path / "absent", tmp_path / "out")
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,2\n")
    with pytest.raises(
        DataError, match=r"t.csv:1 has no column of filename and label .* name it with --filename-column"
    ):
        run(source, tmp_path / "out", f"--csv={table}")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []
    assert run(source, tmp_path / "out") == 0
    with pytest.raises(DataError, match="out is there already; give another --out"):
        run(source, tmp_path / "out")


def test_an_interrupted_import_leaves_nothing(tmp_path, monkeypatch):
    source = clips(tmp_path / "source", ("dog",), 3)
    monkeypatch.setattr("task_aware.importing.build.write_levels", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_other_formats_are_decoded_and_long_clips_are_cut_into_pieces(tmp_path):
    for k in range(3):
        write(tmp_path / "source/rain" / f"{k}.aiff", barks(noise=0.05, seconds=12.0, seed=k), 22050)
    assert run(tmp_path / "source", tmp_path / "out") == 0
    for clip in read_split(tmp_path / "out", "weak").clips:
        assert clip.path.suffix == ".flac" and soundfile.info(clip.path).duration <= 10.0
    assert len(Soundbank(tmp_path / "out").foreground["rain"]) == 2


@pytest.mark.skipif(not KITCHEN.is_dir(), reason=f"no real recordings in {KITCHEN}")
def test_real_clips_with_a_table_and_groups(tmp_path):
    folder = tmp_path / "part"
    (folder / "audio").mkdir(parents=True)
    lines = (KITCHEN / "kitchen20.csv").read_text().splitlines()
    kept = [line for line in lines[1:] if line.split(",")[1] in ("plates", "cupboard", "fridge")]
    (folder / "kitchen20.csv").write_text("\n".join([lines[0], *kept]))
    for line in kept:
        name = line.split(",")[0]
        (folder / "audio" / name).symlink_to((KITCHEN / "audio" / name).resolve())
    assert run(folder, tmp_path / "out", "--background", "fridge") == 0
    assert classes_of(tmp_path / "out") == ("cupboard", "plates")
    held = set(json.loads((tmp_path / "out/import.json").read_text())["held_out"])
    group_of = {f"audio/{line.split(',')[0]}": line.rsplit(",", 1)[1] for line in kept}
    assert not {group_of[name] for name in held} & {group for name, group in group_of.items() if name not in held}
    events = [seconds for seconds in map(float, (row[2] for row in rows(tmp_path / "out/metadata/levels.tsv")))]
    assert min(events) > 10
