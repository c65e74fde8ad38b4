"""The report on a data set, and the command that prints it."""

import numpy as np
import pytest
import soundfile

from task_aware import verify_data
from task_aware.base.errors import DataError
from task_aware.data.desed import read_split
from task_aware.data.labels import DESED_CLASSES
from task_aware.data.verify import verify

from .recordings import burst, write, write_table

LABELS = ("Dog", "Frying", "Speech")


@pytest.fixture
def full(root, fuss):
    """`root` with FUSS's rooms, and clips as long as their labels say."""
    for name in ("v1", "v2"):
        write(root / f"audio/validation/{name}.wav", burst(10.0))
    return root


def look(root, fuss, **options):
    return verify(root, fuss, progress=False, **options)


def test_a_data_set_as_real_ones_are(full, fuss):
    report = look(full, fuss, decode=True, labels=DESED_CLASSES)
    assert report.can_train and not report.problems
    assert report.usable == {"weak", "unlabelled", "synthetic", "validation", "public", "soundbank", "rirs"}
    notes = "\n".join(report.notes)
    for note in (
        "1 of the 3 clips of",  # weak.tsv
        "(gone.wav, ...); they are skipped",
        "no recordings of Alarm_bell_ringing",
        "folders Doorbell match none of the classes",
        "1 events of",
        "validation.tsv end after their clip, by up to 0.115 s",
        "public.tsv end after their clip, by up to 9.900 s",
        "begin after the end of their clip and cannot be detected (the first: Dog at 0.5 s in 0.wav of 0.1 s)",
    ):
        assert note in notes, note
    assert {label: len(paths) for label, paths in report.soundbank.foreground.items() if paths} == {
        "Dog": 2,
        "Frying": 1,
        "Speech": 2,
    }
    assert sorted(map(len, report.rirs.rooms.values())) == [1, 3]
    assert report.seconds(clip.path for clip in report.splits["validation"].clips) == pytest.approx(20.0)


def test_recordings_with_an_offset_are_named(full, fuss):
    write(full / "audio/train/soundbank/foreground/Dog/bark.flac", burst(0.3, lead=1.0) + np.float32(0.005))
    write(full / "audio/validation/v1.wav", burst(10.0) - 0.2)
    notes = "\n".join(look(full, fuss, decode=True).notes)
    assert "1 of the 8 recordings of soundbank have a constant offset, which is taken out" in notes
    assert "1 of the 2 recordings of validation have a constant offset" in notes
    assert "Dog/bark.flac" in notes and "validation/v1.wav" in notes and "recordings of rirs" not in notes


def test_the_command_prints_it_and_ends_with_its_status(full, fuss, capsys):
    write(full / "audio/train/weak/b.wav", np.zeros((800, 2)), 8000)
    verify_data.main([str(full), f"--rirs={fuss}"])
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert lines["weak"] == ["2", "0.00", "1", "0"]
    assert lines["validation"] == ["2", "0.01", "0", "1"]
    assert lines["Speech"] == ["2", "2.0", "1", "0", "1", "0"]  # soundbank, seconds, then a column for each split
    assert lines["Frying"] == ["1", "7.0", "1", "0", "0", "1"]
    assert lines["background"] == ["2", "9.5"]
    assert "rooms: 2 with 4 responses" in out
    assert "of 16000 Hz and 1 channel" in out and "1 of 8000 Hz and 2 channels" in out
    assert "train --config desed --config paper" in out and "cannot run" not in out
    assert out.endswith("training can start\n") and "--decode finds" in out


@pytest.mark.parametrize("decode", [False, True])
def test_cut_off_recordings_are_problems(full, fuss, decode):
    for name in ("validation/v1.wav", "train/soundbank/foreground/Dog/cut.ogg"):
        path = write(full / "audio" / name, burst(10.0))
        path.write_bytes(path.read_bytes()[:2000])
    report = look(full, fuss, decode=decode)
    assert not report.can_train and not {"validation", "soundbank"} & report.usable
    found = "\n".join(report.problems)
    assert "v1.wav is truncated" in found and "cut.ogg is truncated" in found


def test_only_decoding_finds_what_is_silent_or_not_finite(full, fuss):
    foreground = full / "audio/train/soundbank/foreground"
    for number in range(20):
        write(foreground / f"Dog/{number}.wav", burst(0.1, seed=number))
    write(foreground / "Speech/silent.wav", np.zeros(100))
    soundfile.write(foreground / "Speech/nan.wav", np.full(100, np.nan), 16000, subtype="FLOAT")
    write(full / "audio/train/weak/b.wav", np.zeros(100))
    assert "silent" not in "\n".join(look(full, fuss).notes)
    report = look(full, fuss, decode=True)
    notes = "\n".join(report.notes)
    assert "silent.wav is silent" in notes and "nan.wav holds samples that are not finite" in notes
    assert "1 of the 2 clips of weak are silent (the first: " in notes
    assert report.can_train  # 2 of 30 are left out, and a clip may be silent
    for number in range(20):
        write(foreground / f"Dog/{number}.wav", np.zeros(100))
    report = look(full, fuss, decode=True)
    assert "22 of the 30 recordings of soundbank are unusable, but at most 10% may be:" in report.problems
    assert report.problems[-1] == "... and 2 more"
    assert not report.can_train and "soundbank" not in report.usable


def test_all_bad_rows_are_named_at_once(full, fuss, capsys):
    table = full / "metadata/validation/validation.tsv"
    header = "filename\tonset\toffset\tevent_label"
    write_table(table, header, "v1.wav\t1\t2\tDog", "v1.wav\t3\t2\tDog", "v2.wav\t\t\t", "v2.wav\t0\t1\tBird")
    problems = []
    assert len(read_split(full, "validation", DESED_CLASSES, problems=problems).reference["v1.wav"]) == 1
    assert [problem.split(" ")[0] for problem in problems] == [f"{table}:3", f"{table}:5"]
    with pytest.raises(SystemExit) as exit_:
        verify_data.main([str(full), f"--rirs={fuss}", "--classes", *DESED_CLASSES])
    assert exit_.value.code == 1
    printed = capsys.readouterr()
    assert f"\n  {problems[0]}\n  {problems[1]}\n" in printed.out
    assert printed.err.endswith("training cannot start\n")


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("audio/validation/v1.wav", "1 of the 2 recordings of validation are unusable, but at most 0% may be:"),
        ("audio/train/weak/b.wav", "1 of the 2 recordings of weak are unusable, but at most 10% may be:"),
    ],
)
def test_headers_find_files_that_are_no_audio(full, fuss, broken, problem):
    (full / broken).write_text("no audio")
    report = look(full, fuss)
    assert problem in report.problems and any("cannot be decoded" in line for line in report.problems)
    assert not report.can_train


def test_what_is_not_there(full, tmp_path, capsys):
    with pytest.raises(DataError, match="is not a folder; expected one in DESED's layout"):
        verify(tmp_path / "absent")
    with pytest.raises(SystemExit):
        verify_data.main([str(full), f"--rirs={tmp_path / 'absent'}"])
    assert "absent is not a folder; expected one with room impulse responses." in capsys.readouterr().out
    for name in ("weak.tsv", "unlabel_in_domain.tsv", "synthetic20/soundscapes.tsv"):
        (full / "metadata/train" / name).unlink()
    report = verify(full, progress=False)
    assert sum("does not exist; check the data folder" in problem for problem in report.problems) == 3
    assert any("mixtures are dry" in note for note in report.notes)
    empty = tmp_path / "empty"
    empty.mkdir()
    report = verify(empty, progress=False)
    assert not report.can_train and len(report.problems) == 1 and "expected a soundbank" in report.problems[0]


def test_recipes_say_what_to_switch_off():
    everything = {"weak", "unlabelled", "synthetic", "validation", "public", "soundbank"}
    assert {answer for _, answer in verify_data.recipes(everything)} == {"ready"}
    found = dict(verify_data.recipes({"soundbank", "validation"}))
    assert found["train --config recordings"] == found["train --config desed"] == "ready"
    assert (
        found["train --config desed --config paper"] == "lacks weak, unlabelled; add --losses.weak 0 --losses.teacher 0"
    )
    assert found["train_sed --config detector_recordings"] == "ready"
    for option in ("--training.strong mixing", "--training.batch.weak 0", "--training.batch.unlabelled 0"):
        assert option in found["train_sed --config detector_desed"]
    assert found["evaluate --split public"] == "cannot run without public"
    found = dict(verify_data.recipes({"weak", "unlabelled", "validation"}))
    assert found["train --config desed"] == found["mix"] == "cannot run without soundbank"
    assert found["train_sed --config detector_desed"] == "cannot run without synthetic"


def test_real_recordings(minidesed):
    report = verify(minidesed, decode=True, progress=False)
    assert report.can_train and not report.problems
    assert [note for note in report.notes if "soundbank" in note] == report.notes
    assert len(report.probes) == 450
