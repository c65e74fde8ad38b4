import numpy as np
import pytest

from task_aware.data import RirBank, read_audio
from task_aware.data.audio import RecordingError
from task_aware.errors import DataError

from .recordings import write, write_table


def rooms(bank):
    return [[path.as_posix() for path in room] for room in bank.rooms]


@pytest.mark.parametrize("above", ["", "rir_data", "rir_data/train"])
def test_fuss_folders_are_rooms(fuss, above):
    bank = RirBank(fuss / above)
    assert rooms(bank) == [["rirs_00/0.wav", "rirs_00/1.wav", "rirs_00/2.wav"], ["rirs_01/0.wav"]]
    assert rooms(RirBank(fuss, split="validation")) == [["rirs_00/0.wav"]]
    assert "4 responses of 2 rooms" in bank.describe()


def test_a_table_groups_a_flat_folder(tmp_path):
    for name in "abc":
        write(tmp_path / f"{name}.wav", np.ones(10))
    assert rooms(RirBank(tmp_path)) == [["a.wav"], ["b.wav"], ["c.wav"]]
    table = write_table(tmp_path / "rirs.tsv", "filename\troom", "a.wav\thall", "c.wav\thall", "d.wav\thall")
    bank = RirBank(tmp_path)
    assert rooms(bank) == [["b.wav"], ["a.wav", "c.wav"]]
    assert bank.missing == ("d.wav",)
    assert "1 of rirs.tsv missing" in bank.describe()
    write_table(table, "filename\troom", "a.wav")
    with pytest.raises(DataError, match=r"rirs.tsv:2 has no filename or no room"):
        RirBank(tmp_path)
    write_table(table, "file\troom")
    with pytest.raises(DataError, match=r"rirs.tsv:1 must name"):
        RirBank(tmp_path)


def test_responses_are_channel_0_cut_and_of_unit_energy(fuss):
    bank = RirBank(fuss, max_seconds=0.1)
    path = bank.rooms[0][0]
    expected = read_audio(bank.folder / path, channel=0)[:1600]
    expected /= np.sqrt(np.square(expected, dtype=np.float64).sum())
    found = bank.read(path)
    assert found.dtype == np.float32 and len(found) == 1600
    assert np.abs(found - expected).max() < 1e-4
    shorter = bank.read(path, 100)
    assert len(shorter) == 100
    assert np.square(shorter).sum() == pytest.approx(1.0, abs=1e-5)
    assert len(bank.read(path, 99999)) == 1600


def test_faint_responses_are_scaled_up(tmp_path):
    import soundfile

    response = 1e-7 * np.exp(-np.arange(100) / 10)
    soundfile.write(tmp_path / "faint.wav", response, 16000, subtype="FLOAT")
    bank = RirBank(tmp_path)
    assert bank.read(bank.rooms[0][0]) == pytest.approx(response / np.linalg.norm(response), abs=1e-4)


def test_responses_of_zeros_are_named_and_listed(tmp_path):
    write(tmp_path / "a.wav", np.zeros(100))
    write(tmp_path / "late.wav", np.append(np.zeros(1000), 0.5))
    write(tmp_path / "good.wav", np.ones(10))
    bank = RirBank(tmp_path, max_seconds=0.05, max_broken=0.7)
    for _ in range(2):
        with pytest.raises(RecordingError, match=r"a.wav is silent"):
            bank.read("a.wav")
        with pytest.raises(RecordingError, match=r"late.wav is zero for its first 0.05 s"):
            bank.read("late.wav")
    assert sorted(bank.rejected) == ["a.wav", "late.wav"]
    assert "2 unusable: a.wav, late.wav" in bank.describe()
    with pytest.raises(DataError, match="1 of 3 recordings .* at most 10%"):
        RirBank(tmp_path).read("a.wav")


def test_a_folder_without_responses_says_so(tmp_path):
    with pytest.raises(DataError, match="absent is not a folder"):
        RirBank(tmp_path / "absent")
    with pytest.raises(DataError, match="has no .wav, .flac or .ogg file"):
        RirBank(tmp_path)
    with pytest.raises(ValueError, match="max_seconds must be above 0"):
        RirBank(tmp_path, max_seconds=0)


def test_real_rooms(minidesed):
    bank = RirBank(minidesed / "rirs")
    assert sorted(map(len, bank.rooms)) == [4, 74]
    bank.preload()
    assert not bank.rejected
