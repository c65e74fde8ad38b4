import numpy as np
import pytest
import soundfile

from task_aware.base.errors import DataError
from task_aware.data import RirBank, read_audio
from task_aware.data.rirs import list_rirs

from .recordings import burst, write, write_table


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
    with pytest.raises(DataError, match=r"rirs.tsv:2 lacks a filename or a room"):
        RirBank(tmp_path)
    write_table(table, "file\troom")
    with pytest.raises(DataError, match=r"rirs.tsv:1 must hold"):
        RirBank(tmp_path)


def unit(bank, path):
    """A response as `DynamicMixer` scales it."""
    recording = bank.read(path)
    return recording.samples / np.linalg.norm(recording.samples.astype(np.float64)), recording


def test_responses_are_channel_0_and_cut(fuss):
    bank = RirBank(fuss, max_seconds=0.1)
    path = bank.rooms[0][0]
    expected = read_audio(bank.folder / path, channel=0)[:1600]
    found, recording = unit(bank, path)
    assert len(found) == 1600
    assert np.abs(found - expected / np.linalg.norm(expected)).max() < 1e-4
    energy = np.square(expected, dtype=np.float64).sum()
    assert recording.frames.energies.sum() == pytest.approx(energy, rel=1e-4)
    assert len(RirBank(fuss, max_seconds=9.0).read(path).samples) == 4000


@pytest.mark.parametrize("delay", [0, 10, 40, 1600, 6400])
def test_a_delayed_response_begins_shortly_before_its_direct_sound(tmp_path, delay):
    response = np.random.default_rng(0).normal(size=4000) * np.exp(-np.arange(4000) / 600) * 0.1
    response[0] = 0.9
    noise = 0.01 * np.random.default_rng(1).uniform(-1, 1, delay)
    write(tmp_path / "a.wav", np.concatenate([noise, response]))
    bank = RirBank(tmp_path, max_seconds=0.25)
    found = unit(bank, bank.rooms[0][0])[0]
    lead = min(delay, 16)
    assert np.abs(found).argmax() == lead
    assert found[lead:] == pytest.approx(response[: 4000 - lead] / np.linalg.norm(response), abs=1e-3)


def test_an_early_reflection_louder_than_the_direct_sound_is_not_taken_for_it(tmp_path):
    response = np.zeros(1000)
    response[300], response[420] = 0.2, 0.9
    write(tmp_path / "a.wav", response)
    bank = RirBank(tmp_path)
    assert unit(bank, bank.rooms[0][0])[0].nonzero()[0].tolist() == [16, 136]


def test_the_table_of_rooms_is_read_as_all_tables(tmp_path):
    write(tmp_path / 'a "b".wav', np.ones(10))
    write_table(tmp_path / "rirs.tsv", "filename\troom", '"a ""b"".wav"\thall')
    assert list(list_rirs(tmp_path).rooms) == ["room hall"]
    (tmp_path / "rirs.tsv").write_bytes(b"filename\troom\n\xff\thall\n")
    with pytest.raises(DataError, match="rirs.tsv is not UTF-8 text"):
        RirBank(tmp_path)


def test_faint_responses_keep_their_range(tmp_path):
    response = 1e-7 * np.exp(-np.arange(100) / 10)
    soundfile.write(tmp_path / "faint.wav", response, 16000, subtype="FLOAT")
    bank = RirBank(tmp_path)
    assert unit(bank, bank.rooms[0][0])[0] == pytest.approx(response / np.linalg.norm(response), abs=1e-4)


def test_responses_of_zeros_are_named_and_listed(tmp_path):
    write(tmp_path / "a.wav", np.zeros(100))
    write(tmp_path / "good.wav", np.ones(10))
    bank = RirBank(tmp_path, max_broken=0.7)
    assert list(bank.rejected) == ["a.wav"]
    assert "a.wav is silent" in bank.rejected["a.wav"]
    assert rooms(bank) == [["good.wav"]]
    assert "1 unusable: a.wav" in bank.describe()
    with pytest.raises(DataError, match="1 of 2 recordings .* at most 10%"):
        RirBank(tmp_path)
    (tmp_path / "good.wav").unlink()
    with pytest.raises(DataError, match="no usable room impulse response"):
        RirBank(tmp_path, max_broken=1.0)


def test_a_folder_without_responses_says_so(tmp_path):
    with pytest.raises(DataError, match="absent is not a folder"):
        RirBank(tmp_path / "absent")
    with pytest.raises(DataError, match="has no .wav, .flac, .ogg or .sofa file"):
        RirBank(tmp_path)
    with pytest.raises(ValueError, match="max_seconds must be above 0"):
        RirBank(tmp_path, max_seconds=0)


def test_real_rooms(minidesed):
    bank = RirBank(minidesed / "rirs")
    assert sorted(map(len, bank.rooms)) == [4, 74]
    assert not bank.rejected


def test_a_table_of_rooms_that_is_no_text_is_one_sentence(tmp_path):
    write(tmp_path / "a.wav", burst(0.1))
    (tmp_path / "rirs.tsv").write_bytes(b"filename\troom\na.wav\t\xe9\n")
    with pytest.raises(DataError, match="rirs.tsv is not UTF-8 text"):
        list_rirs(tmp_path)


def test_a_response_beyond_what_numbers_can_hold_is_rejected(tmp_path):
    """Resampling overflows where its neighbours are as large as floats can be; rooms go on without it."""
    largest = np.finfo(np.float32).max
    soundfile.write(tmp_path / "a.wav", np.tile([largest, largest, -largest], 500), 48000, subtype="FLOAT")
    write(tmp_path / "good.wav", np.ones(10))
    bank = RirBank(tmp_path, max_broken=0.7)
    assert list(bank.rejected) == ["a.wav"] and "exceeds what numbers can hold" in bank.rejected["a.wav"]
