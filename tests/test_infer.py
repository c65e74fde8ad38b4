"""`python -m task_aware.infer` as a user meets it: folders of all kinds of files, mistakes, interruptions."""

import csv
import os
import shutil
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile
import torch
from data.recordings import burst, write

from task_aware import infer
from task_aware.base.errors import CheckpointError, DataError
from task_aware.data.audio import read_audio
from task_aware.data.desed import Clip, Split, read_events
from task_aware.data.labels import DESED_CLASSES
from task_aware.data.offset import remove_offset
from task_aware.inference import batch
from task_aware.inference.outputs import write_scores
from task_aware.inference.result import Result
from task_aware.models.system import Separator
from task_aware.scoring.evaluation import SEPARATED, detect_split

BROKEN = {"broken/absent.wav", "broken/cut.flac", "broken/empty.wav"}
WHOLE = {"high.wav", "a.wav", "a.flac", "deep/b.ogg", "deep/c.mp3", "long.wav"}


@pytest.fixture
def checkpoint(small_separator, tmp_path) -> Path:
    small_separator.save(tmp_path / "separator.safetensors")
    return tmp_path / "separator.safetensors"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Good and bad files of many formats; the good ones have all their seconds in their name's table above."""
    root = tmp_path_factory.mktemp("recordings")
    write(root / "a.wav", burst(6.0, lead=1.0, tail=1.0))
    write(root / "a.flac", burst(4.0, seed=1))
    high = np.repeat(burst(2.5, seed=2), 6)
    write(root / "high.wav", np.stack([high, 0.5 * high], axis=1), 96000)
    for name, seed in (("deep/b.ogg", 3), ("deep/c.mp3", 4)):
        write(root / name, burst(3.0, lead=0.5, seed=seed))
    n_samples = 300 * 8000
    level = 0.3 * np.abs(np.sin(np.arange(n_samples) / 20000))  # five minutes at 8 kHz, waxing and waning
    write(root / "long.wav", level * np.random.default_rng(5).uniform(-1, 1, n_samples), 8000)
    cut = write(root / "broken" / "cut.flac", burst(5.0))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (root / "broken" / "empty.wav").touch()
    (root / "broken" / "absent.wav").symlink_to(root / "nowhere.wav")
    return root


def run(*arguments: object) -> int:
    """The command's exit status."""
    try:
        infer.main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1
    return 0


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def contents(folder: Path) -> dict[str, bytes]:
    """All files below; of a WAV its samples, since libsndfile notes the time in its header."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: soundfile.read(path)[0].tobytes() if path.suffix == ".wav" else path.read_bytes()
        for name, path in files.items()
    }


def test_a_folder_of_all_kinds_of_files(checkpoint, recordings, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(checkpoint, recordings, f"--out={out}", "--scores", "--device=cpu", "--jobs=3") == 1
    printed = capsys.readouterr()
    assert "6 recordings, 5.4 min of audio" in printed.out and "3 could not be read" in printed.err
    assert {row["filename"] for row in table(out / "errors.tsv")} == BROKEN
    assert all("broken" in row["error"] for row in table(out / "errors.tsv"))
    stems = {"a.wav", "a.flac", "high", "deep/b", "deep/c", "long"}  # two would be called a
    for kind in ("events", "scores"):
        assert {name.removesuffix(".tsv") for name in contents(out / kind)} == stems
    assert not list(out.rglob(".*"))
    together = read_events(out / "events.tsv")
    assert set(together) == WHOLE and any(together.values())
    for name, events in together.items():
        stem = name if name.startswith("a.") else str(Path(name).with_suffix(""))
        rows = [(row["onset"], row["offset"], row["event_label"]) for row in table(out / "events" / f"{stem}.tsv")]
        assert rows == [(f"{event.onset:.3f}", f"{event.offset:.3f}", event.label) for event in events]
    scores = table(out / "scores" / "long.tsv")
    assert list(scores[0]) == ["onset", "offset", *DESED_CLASSES]
    assert [row["offset"] for row in scores[:-1]] == [row["onset"] for row in scores[1:]]
    assert 299.9 < float(scores[-1]["offset"]) <= 300.0
    assert all(0 <= float(row[label]) <= 1 for row in scores for label in DESED_CLASSES)


def test_sources_of_classes_have_their_names(class_separator, recordings, tmp_path):
    class_separator.save(tmp_path / "separator.safetensors")
    arguments = ["--audio", "--plot", "--device=cpu", "--window=4", "--overlap=1"]
    assert run(tmp_path / "separator.safetensors", recordings / "a.wav", f"--out={tmp_path}", *arguments) == 0
    heard = {row["event_label"] for row in table(tmp_path / "events.tsv")}
    assert 0 < len(heard) < 10
    sources = {path.name: read_audio(path) for path in (tmp_path / "audio").iterdir()}
    assert sources.keys() == {f"a.{name}.flac" for name in (*heard, "rest")}
    samples = remove_offset(read_audio(recordings / "a.wav"), 16000)
    np.testing.assert_allclose(sum(sources.values()), samples, atol=1e-5)


def test_a_file_of_one_window_is_what_evaluate_detects(checkpoint, recordings, tmp_path):
    assert run(checkpoint, recordings / "a.wav", f"--out={tmp_path}", "--scores") == 0
    split = Split("one", (Clip(recordings / "a.wav", None, None, "a.wav"),), (), tmp_path)
    model = Separator.from_checkpoint(checkpoint)
    events = detect_split(model, split, device=torch.device("cpu"), progress=False)[SEPARATED]["a.wav"]
    found = [(row["onset"], row["offset"], row["event_label"]) for row in table(tmp_path / "events.tsv")]
    assert found == [(f"{event.onset:.3f}", f"{event.offset:.3f}", event.label) for event in events] != []
    samples = remove_offset(read_audio(recordings / "a.wav"), 16000)
    mel = model.detector.feature_config.mel(torch.from_numpy(samples)[None])
    scores = np.loadtxt(tmp_path / "scores" / "a.tsv", skiprows=1)[:, 2:]
    np.testing.assert_allclose(scores, model.analyse(mel).merged[0], atol=1e-6)


def test_an_interrupted_run_goes_on_to_the_same_files(checkpoint, recordings, tmp_path, monkeypatch):
    options = ["--scores", "--audio", "--window=4", "--overlap=1", "--device=cpu"]
    inputs = [recordings / name for name in ("a.wav", "high.wav", "deep", "broken/cut.flac")]
    assert run(checkpoint, *inputs, f"--out={tmp_path / 'unbroken'}", *options) == 1

    write_event_table, written = batch.write_event_table, []

    def stop_at_the_third(path, events):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write_event_table(path, events)

    monkeypatch.setattr(batch, "write_event_table", stop_at_the_third)
    broken = [checkpoint, *inputs, f"--out={tmp_path / 'broken'}", "--skip-existing", *options]
    with pytest.raises(KeyboardInterrupt):
        run(*broken)
    monkeypatch.setattr(
        batch, "write_event_table", lambda path, events: (written.append(path), write_event_table(path, events))
    )
    assert run(*broken) == 1
    assert len(written) == len(set(written)) == 4  # nothing done twice, nothing left out
    unbroken = contents(tmp_path / "unbroken")
    assert contents(tmp_path / "broken") == unbroken
    assert len([name for name in unbroken if name.startswith("audio/")]) == 4 * 3


def test_results_within_the_input_are_not_taken_for_recordings(checkpoint, recordings, tmp_path, capsys):
    folder = tmp_path / "in"
    shutil.copytree(recordings / "deep", folder / "audio")
    shutil.copy(recordings / "deep" / "b.ogg", folder / "audio" / "b.second.take.ogg")
    for out in (folder, folder / "results"):
        for repeated in range(3):
            assert run(checkpoint, folder, f"--out={out}", "--audio", "--device=cpu") == 0
            assert "3 recordings, " in capsys.readouterr().out
            if repeated == 1:  # as after a kill before the table is written
                next(out.rglob("events/**/b.tsv")).unlink()
    with pytest.raises(DataError, match=r"all recordings given .* are sources that an earlier run separated"):
        run(checkpoint, folder / "results" / "audio", f"--out={folder / 'results'}")


def test_an_input_without_recordings_is_named_beside_others(checkpoint, recordings, tmp_path):
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", recordings / "*.aiff"):
        with pytest.raises(DataError, match=r"there are no recordings .* in .*(empty|aiff)"):
            run(checkpoint, recordings / "a.wav", nothing, f"--out={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_shards_together_are_the_whole(checkpoint, recordings, tmp_path):
    options = [recordings / "a.wav", recordings / "a.flac", recordings / "deep"]
    assert run(checkpoint, *options, f"--out={tmp_path / 'whole'}") == 0
    parts = tmp_path / "parts"
    for part in ("1/2", "2/2"):
        assert run(checkpoint, *options, f"--out={parts}", f"--shard={part}") == 0
    names = [{row["filename"] for row in table(parts / f"events-{k}-of-2.tsv")} for k in (1, 2)]
    assert not names[0] & names[1] and len(names[0] | names[1]) == 4
    assert run(checkpoint, *options, f"--out={parts}", "--skip-existing") == 0  # joins them
    for name in ("events.tsv", "events/a.wav.tsv", "events/c.tsv"):
        assert (parts / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_sources_of_a_long_recording(checkpoint, recordings, tmp_path):
    rate = 16000
    assert run(checkpoint, recordings / "a.wav", f"--out={tmp_path}", "--audio", "--window=2", "--overlap=0.5") == 0
    sources = []
    for k in (1, 2, 3):
        samples, found_rate = soundfile.read(tmp_path / "audio" / f"a.source_{k}.flac")
        assert found_rate == rate and len(samples) == 8 * rate
        sources.append(samples)
    mixture = read_audio(recordings / "a.wav")
    for samples in sources:  # masks are between the floor and 1
        assert 0.02 * np.std(mixture) < np.std(samples) < np.std(mixture)
        assert np.abs(samples[: rate // 2]).max() < 1e-4  # where the mixture is silent


def test_a_picture_of_the_beginning(checkpoint, recordings, tmp_path):
    assert run(checkpoint, recordings / "long.wav", f"--out={tmp_path}", "--plot", "--plot-minutes=0.2") == 0
    picture = matplotlib.image.imread(tmp_path / "plots" / "long.png")
    assert picture.shape[1] == 1404 and np.ptp(picture[..., :3]) > 0.9


def test_a_detector_alone(small_detector, recordings, tmp_path):
    path = tmp_path / "detector.safetensors"
    small_detector.save(path)
    assert run(path, recordings / "a.wav", f"--out={tmp_path}") == 0
    assert table(tmp_path / "events.tsv")
    with pytest.raises(ValueError, match="--audio needs a separator"):
        run(path, recordings / "a.wav", f"--out={tmp_path}", "--audio")


def test_the_demo_hears_the_built_in_corpus(tiny_corpus, tmp_path):
    folder = tiny_corpus / "audio" / "validation"
    assert run("--demo", folder, f"--out={tmp_path}") == 0
    truth = read_events(tiny_corpus / "metadata" / "validation" / "validation.tsv")
    found = read_events(tmp_path / "events.tsv")
    heard = [(name, label) for name in truth for label in {event.label for event in found[name]}]
    assert heard and np.mean([label in {event.label for event in truth[name]} for name, label in heard]) > 0.5


def test_more_windows_at_a_time_and_bfloat16(checkpoint, recordings, tmp_path):
    inputs = [recordings / "a.wav", recordings / "deep"]
    for name, *options in (("one",), ("many", "--batch-size=8"), ("short", "--precision=bf16-mixed")):
        assert (
            run(checkpoint, *inputs, f"--out={tmp_path / name}", "--scores", "--window=2", "--overlap=0.5", *options)
            == 0
        )
    one, many, short = (
        np.loadtxt(tmp_path / name / "scores" / "a.tsv", skiprows=1)[:, 2:] for name in ("one", "many", "short")
    )
    np.testing.assert_allclose(many, one, atol=1e-5)
    assert 0 < np.abs(short - one).max() < 0.1


def test_mistakes_are_one_sentence(checkpoint, recordings, tmp_path):
    file, out = recordings / "a.wav", f"--out={tmp_path / 'out'}"
    for error, message, *arguments in [
        (CheckpointError, "there is no checkpoint", tmp_path / "absent.safetensors", file),
        (CheckpointError, "not a complete safetensors file", file, file),
        (ValueError, "no recordings given", checkpoint),
        (DataError, "there are no recordings", checkpoint, recordings / "*.aiff"),
        (ValueError, "is not a valid part", checkpoint, file, "--shard=3/2"),
        (ValueError, "cannot overlap by 9 s", checkpoint, file, "--overlap=9", "--window=10"),
        (ValueError, "--threshold is 2.0", checkpoint, file, "--threshold=2"),
        (ValueError, "the device 'gpu9' cannot be used", checkpoint, file, "--device=gpu9"),
        (ValueError, "--jobs is 0", checkpoint, file, "--jobs=0"),
        (ValueError, "--plot-minutes is 0.0", checkpoint, file, "--plot-minutes=0"),
    ]:
        with pytest.raises(error, match=message):
            infer.main([str(argument) for argument in (*arguments, out)])
    assert not (tmp_path / "out").exists()
    assert run(checkpoint, file) == 2  # --out is missing


def test_no_file_ends_a_run_over_many(checkpoint, tmp_path, monkeypatch, capsys):
    """Neither what is in it, nor its name, nor that it goes away before it is drawn."""
    folder, out = tmp_path / "in", tmp_path / "out"
    good = {"a.wav", "z.wav", 'quote" tab\t.wav', "$a_{$.wav", "x" * 240 + ".wav", "sub/line\nbreak.wav"}
    for name in good:
        write(folder / name, burst(1.0))
    soundfile.write(folder / "loud.wav", np.full(16000, 3e38, np.float32), 16000, subtype="FLOAT")
    write(folder / "gone.wav", burst(1.0))
    (folder / "caf").mkdir()
    not_utf8 = Path(os.fsdecode(os.fsencode(folder / "caf") + b"\xe9.wav"))
    shutil.copy(folder / "a.wav", not_utf8)
    for suffix in (".wav", ".flac"):  # keep their suffixes, so that the results' names are longer
        write(folder / ("y" * 248 + suffix), burst(1.0))
    draw = batch.draw

    def draw_what_is_left(path, recording, *arguments):
        if recording.name == "gone.wav":
            recording.path.unlink()
        draw(path, recording, *arguments)

    monkeypatch.setattr(batch, "draw", draw_what_is_left)
    assert run(checkpoint, folder, f"--out={out}", "--plot", "--scores", "--audio", "--device=cpu", "--jobs=2") == 1
    errors = {row["filename"]: row["error"] for row in table(out / "errors.tsv")}
    long = {"y" * 248 + suffix for suffix in (".wav", ".flac")}
    assert set(errors) == {"loud.wav", "gone.wav", "caf\\udce9.wav", *long}
    assert "reaches 3e+38" in errors["loud.wav"] and "is not a file" in errors["gone.wav"]
    assert "is not UTF-8; rename it" in errors["caf\\udce9.wav"]
    assert all("a name so long" in errors[name] for name in long)
    assert set(read_events(out / "events.tsv")) == good
    assert not list(out.rglob(".*"))

    (out / "events/a.tsv").write_bytes(b"\xff")
    (out / "events/z.tsv").write_text('onset\toffset\tevent_label\n"')
    (out / "plots/.a.png.123.tmp").touch()  # as after a kill
    (out / "plots/.notes.tmp").touch()  # somebody else's
    assert run(checkpoint, folder / "a.wav", folder / "z.wav", f"--out={out}", "--skip-existing") == 1
    assert list(out.rglob(".*")) == [out / "plots/.notes.tmp"]
    errors = {row["filename"]: row["error"] for row in table(out / "errors.tsv")}
    assert set(errors) == {"a.wav", "z.wav"} and "remove it and run again" in errors["a.wav"]


def test_scores_have_no_frame_without_length(small_detector, tmp_path):
    """sed_scores_eval refuses them; a detector with an answer for each feature frame has one at the very end."""
    result = Result([], np.zeros((51, 10), np.float32), 1.0)
    write_scores(tmp_path / "a.tsv", result, ['a "b"\t', *DESED_CLASSES[1:]], 0.02)
    rows = table(tmp_path / "a.tsv")
    assert len(rows) == 50 and all(float(row["onset"]) < float(row["offset"]) for row in rows)
    assert list(rows[0]) == ["onset", "offset", 'a "b"\t', *DESED_CLASSES[1:]]


def test_a_failure_leaves_no_half_of_the_sources(checkpoint, tmp_path):
    cut = write(tmp_path / "in" / "cut.flac", burst(60.0))
    content = cut.read_bytes()
    cut.write_bytes(content[: int(0.9 * len(content))])
    assert run(checkpoint, tmp_path / "in", f"--out={tmp_path / 'out'}", "--audio", "--window=2", "--overlap=0.5") == 1
    assert set(contents(tmp_path / "out")) == {"events.tsv", "errors.tsv"}


class TestExamples:
    EXAMPLES = Path(__file__).parents[1] / "examples"

    def start(self, name: str, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.syspath_prepend(self.EXAMPLES)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return __import__(name)

    def test_detect(self, recordings, checkpoint, tmp_path, monkeypatch, capsys):
        shutil.copy(recordings / "a.wav", tmp_path)
        self.start("detect", monkeypatch).main(str(tmp_path / "a.wav"), checkpoint)
        assert " s to " in capsys.readouterr().out
        assert len(list(tmp_path.glob("a.source_*.wav"))) == 3

    def test_batches(self, recordings, monkeypatch, capsys):
        self.start("batches", monkeypatch).main(str(recordings / "broken"), n_processes=1, batch_size=2)
        assert capsys.readouterr().out.count("cannot be decoded") == 2

    def test_shards(self, recordings, checkpoint, tmp_path, monkeypatch):
        script = self.start("shards", monkeypatch)
        for rank in (0, 1):
            for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 2)):
                monkeypatch.setenv(name, str(value))
            monkeypatch.setattr("torch.cuda.is_available", lambda: False)
            script.main(str(checkpoint), str(recordings / "deep"), str(tmp_path))
        assert set(contents(tmp_path / "events")) == {"b.tsv", "c.tsv"}
