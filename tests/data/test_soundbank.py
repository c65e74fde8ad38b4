import numpy as np
import pytest

from task_aware.base.errors import DataError
from task_aware.data import DESED_CLASSES, Soundbank, read_audio, soundbank
from task_aware.data.classes import classes_of
from task_aware.data.labels import safe_name

from .recordings import burst, write

LABELS_OF_ALL_KINDS = (
    "Dishes, pots / pans",
    "\u0632\u0646\u06af",
    "a_nOn",
    ".hidden",
    "100 %",
    "background",
    "x:y?",
    "@eaDir",
)
LABELS = ("Cat", "Dog", "Frying", "Speech")


def names(paths):
    return [path.as_posix() for path in paths]


def test_cut_suffixes_are_no_part_of_the_label(root):
    bank = Soundbank(root, LABELS)
    assert {label: names(paths) for label, paths in bank.foreground.items()} == {
        "Dog": ["foreground/Dog/bark.flac", "foreground/Dog_nOn/bark.ogg"],
        "Frying": ["foreground/Frying_nOn_nOff/pan.wav"],
        "Speech": ["foreground/Speech/one.wav", "foreground/Speech_nOff/two.wav"],
    }
    assert names(bank.background) == ["background/sins/short.wav", "background/tut-scenes-2017-dev/long.wav"]
    assert bank.absent == ("Cat",)
    assert bank.unknown == ("Doorbell",)


def test_recordings_are_read_by_their_listed_path(root):
    bank = Soundbank(root, LABELS)
    path = bank.foreground["Speech"][0]
    recording = bank.read(path)
    assert np.array_equal(recording.samples * np.float32(recording.scale), read_audio(bank.folder / path))


def test_the_bank_may_be_given_without_a_data_set(root):
    bank = Soundbank(root / "audio/train/soundbank", LABELS)
    assert bank.foreground == Soundbank(root, LABELS).foreground


def test_description_counts_what_is_there(root):
    (root / "audio/train/soundbank/foreground/Dog/broken.wav").write_text("no audio")
    bank = Soundbank(root, LABELS, max_broken=0.5)
    assert bank.seconds() == pytest.approx({"Dog": 1.0, "Frying": 7.0, "Speech": 2.0, "background": 9.5}, abs=1e-3)
    text = bank.describe()
    for line in (
        "Speech          2 recordings       2.0 s",
        "no recordings of Cat",
        "none of the labels: Doorbell",
        "1 unusable: foreground/Dog/broken.wav",
    ):
        assert line in text


def test_many_classes_are_described_in_one_line(root, monkeypatch):
    monkeypatch.setattr(soundbank, "MOST_LISTED", 2)
    assert Soundbank(root, LABELS).describe().splitlines()[1:3] == [
        "  3 classes of 1 to 2 each      5 recordings      10.0 s",
        "  background                    2 recordings       9.5 s",
    ]


def test_unusable_recordings_are_left_out_up_to_a_share(root):
    for number in range(2):
        write(root / f"audio/train/soundbank/foreground/Cat/{number}.wav", np.zeros(100))
    bank = Soundbank(root, LABELS, max_broken=0.3)
    assert list(bank.rejected) == ["foreground/Cat/0.wav", "foreground/Cat/1.wav"]
    assert bank.absent == ("Cat",)
    with pytest.raises(DataError, match="2 of 9 recordings .*Cat/1.wav is silent"):
        Soundbank(root, LABELS, max_broken=0.2)
    for path in (root / "audio/train/soundbank/foreground").rglob("*.*"):
        path.write_text("broken")
    with pytest.raises(DataError, match="no usable recording of Cat, Dog, Frying, Speech"):
        Soundbank(root, LABELS, max_broken=1.0)


def test_a_folder_without_a_bank_says_what_is_wanted(root, tmp_path):
    with pytest.raises(DataError, match=r"soundbank/foreground is not a folder; expected a soundbank"):
        Soundbank(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"no usable recording of Cat; it only has Dog, Doorbell, Frying, Speech; put"):
        Soundbank(root, ["Cat"])
    with pytest.raises(ValueError, match="max_broken must be between 0 and 1"):
        Soundbank(root, max_broken=2.0)


def test_rates_other_than_the_recordings_are_met(root):
    write(root / "audio/train/soundbank/foreground/Cat/8k.wav", burst(1.0), 8000)
    bank = Soundbank(root, LABELS)
    assert len(bank.read(bank.foreground["Cat"][0]).samples) == 32000


def test_a_bank_has_the_classes_of_its_folders_whatever_their_names(root):
    """Names that no folder can have are written with percent signs, and suffixes of DESED's are no part of them."""
    for number, label in enumerate(LABELS_OF_ALL_KINDS):
        write(root / "audio/train/soundbank/foreground" / safe_name(label) / "a.wav", burst(0.1, seed=number))
    bank = Soundbank(root)
    assert set(LABELS_OF_ALL_KINDS) <= set(bank.labels) and list(bank.labels) == sorted(bank.labels)
    assert {"Doorbell", "Dog", "Frying", "Speech"} == set(bank.labels) - set(LABELS_OF_ALL_KINDS)
    assert bank.unknown == () and bank.absent == ()
    assert set(classes_of(root)) == set(bank.labels)  # the tables name Dog, Frying and Speech


def test_real_bank(minidesed):
    bank = Soundbank(minidesed, DESED_CLASSES)
    assert {label: len(paths) for label, paths in bank.foreground.items()} == {
        "Alarm_bell_ringing": 4,
        "Cat": 2,
        "Dishes": 59,
        "Dog": 24,
        "Electric_shaver_toothbrush": 11,
        "Running_water": 25,
        "Speech": 52,
    }
    assert bank.absent == ("Blender", "Frying", "Vacuum_cleaner")
    assert bank.seconds()["Speech"] == pytest.approx(151.9, abs=0.1)
    assert not bank.rejected
