"""The cache of decoded recordings: made once, told from changed files, shared by processes."""

import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from task_aware.base.errors import DataError, RecordingError
from task_aware.data import recordings as module
from task_aware.data.audio import read_audio
from task_aware.data.finding import find_audio
from task_aware.data.levels import Frames, audible, power_spectrum
from task_aware.data.recordings import Recordings

from .recordings import burst, write


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TASK_AWARE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    for number, name in enumerate("abc"):
        write(tmp_path / f"bank/{name}.wav", burst(0.5, seed=number))
    return tmp_path / "bank"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The files that are decoded."""
    names = []
    monkeypatch.setattr(
        module, "read_audio", lambda path, *a, **k: names.append(path.name) or read_audio(path, *a, **k)
    )
    return names


def opened(folder: Path, *, max_broken: float = 0.5, **options) -> Recordings:
    return Recordings(folder, find_audio(folder, folder), sample_rate=16000, max_broken=max_broken, **options)


def floats(bank: Recordings, name: str) -> np.ndarray:
    recording = bank.read(Path(name))
    return recording.samples * np.float32(recording.scale)


def same_as_the_files(bank: Recordings, folder: Path, names: str = "abc") -> bool:
    return all(np.array_equal(floats(bank, f"{name}.wav"), read_audio(folder / f"{name}.wav")) for name in names)


def test_16_bit_recordings_are_kept_without_loss_and_with_their_measures(folder):
    bank = opened(folder)
    assert same_as_the_files(bank, folder)
    samples = audible(read_audio(folder / "a.wav"), 16000)
    recording = bank.read(Path("a.wav"))
    assert recording.frames.energies == pytest.approx(Frames.of(samples, 16000).energies, rel=1e-6)
    exact = power_spectrum(samples)
    assert np.abs(10 * np.log10(recording.power() / exact)).max() < 0.01
    assert bank.seconds(Path("a.wav")) == 0.5


def test_float_recordings_keep_their_range(folder):
    for name, level in (("quiet", 1e-3), ("loud", 30.0)):
        soundfile.write(folder / f"{name}.wav", level * burst(0.1), 16000, subtype="FLOAT")
    bank = opened(folder)
    for name, level in (("quiet", 1e-3), ("loud", 30.0)):
        samples = level * burst(0.1)
        assert np.abs(floats(bank, f"{name}.wav") - samples).max() < 2e-5 * np.abs(samples).max()


def test_only_what_changed_is_decoded_again(folder, decoded):
    opened(folder)
    assert sorted(decoded) == ["a.wav", "b.wav", "c.wav"]
    decoded.clear()
    reader = opened(folder)
    assert decoded == []
    write(folder / "b.wav", burst(0.7, seed=9))
    write(folder / "d.wav", burst(0.2, seed=4))
    assert same_as_the_files(opened(folder), folder, "abcd")
    assert sorted(decoded) == ["b.wav", "d.wav"]
    assert len(reader.read(Path("b.wav")).samples) == 8000  # an open bank goes on with what it has


def test_the_time_of_change_counts_where_the_size_is_the_same(folder, decoded):
    opened(folder)
    decoded.clear()
    write(folder / "a.wav", burst(0.5, seed=7))
    os.utime(folder / "a.wav", ns=(1, 1))
    assert same_as_the_files(opened(folder), folder)
    assert decoded == ["a.wav"]


def test_a_file_of_the_same_size_and_time_is_read_anew(folder, decoded):
    """What `cp -p` and `rsync -t` leave when they replace one take by another."""
    before = (folder / "b.wav").stat()
    opened(folder)
    write(folder / "b.wav", burst(0.5, seed=9))
    os.utime(folder / "b.wav", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (folder / "b.wav").stat().st_size == before.st_size
    del decoded[:]
    assert same_as_the_files(opened(folder), folder)
    assert decoded == ["b.wav"]


def test_removed_files_are_dropped_and_others_that_are_not_asked_for_kept(folder, decoded):
    whole = opened(folder).file.stat().st_size
    (folder / "c.wav").unlink()
    only = Recordings(folder, [Path("a.wav")], sample_rate=16000, max_broken=0.0)
    assert only.file.stat().st_size == whole  # nothing new: not written again
    write(folder / "a.wav", burst(0.4, seed=7))
    bank = Recordings(folder, [Path("a.wav")], sample_rate=16000, max_broken=0.0)
    assert bank.file.stat().st_size < whole - 16000
    with pytest.raises(KeyError):
        bank.read(Path("c.wav"))
    decoded.clear()
    assert same_as_the_files(opened(folder), folder, "ab")
    assert decoded == []


def test_rates_channels_and_lengths_have_files_of_their_own(folder, cache):
    stereo = np.stack([burst(0.1, seed=1), burst(0.1, seed=2)], axis=1)
    write(folder / "stereo.wav", stereo)
    write(folder / "also.wav", stereo)
    opened(folder)
    left = Recordings(folder, [Path("stereo.wav")], sample_rate=16000, max_broken=0.0, channel=0, max_samples=100)
    assert np.array_equal(floats(left, "stereo.wav"), read_audio(folder / "stereo.wav", channel=0)[:100])
    assert len({path for path in cache.rglob("*.bin")}) == 2


def test_unusable_files_are_listed_and_not_decoded_again(folder, decoded, caplog):
    write(folder / "silent.wav", np.zeros(1000))
    write(folder / "faint.wav", np.full(1000, 0.4 / 32768))
    (folder / "text.wav").write_text("not audio")
    for _ in range(2):
        bank = opened(folder)
        assert list(bank.rejected) == ["faint.wav", "silent.wav", "text.wav"]
        assert bank.usable([Path("silent.wav"), Path("b.wav")]) == [Path("b.wav")]
        with pytest.raises(RecordingError, match="silent.wav is silent; replace"):
            bank.read(Path("silent.wav"))
    assert len(decoded) == 6 and len(caplog.records) == 6
    with pytest.raises(DataError, match=r"3 of 6 recordings .* at most 10% may be.*text.wav") as caught:
        opened(folder, max_broken=0.1)
    assert not isinstance(caught.value, RecordingError)
    write(folder / "text.wav", burst(0.1))
    assert list(opened(folder).rejected) == ["faint.wav", "silent.wav"]
    with pytest.raises(ValueError, match="max_broken must be between 0 and 1"):
        opened(folder, max_broken=2.0)


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_cache_is_made_again(folder, damage):
    file = opened(folder).file
    file.write_bytes(file.read_bytes()[:-100] if damage is None else damage)
    assert same_as_the_files(opened(folder), folder)


def test_a_damaged_number_in_a_cache_gives_no_other_sound(folder):
    file = opened(folder).file
    content = file.read_bytes()
    assert content.count(b'"start": 0') == 1
    file.write_bytes(content.replace(b'"start": 0', b'"start": 8'))
    assert same_as_the_files(opened(folder), folder)


def test_a_failed_update_leaves_the_old_file(folder, monkeypatch):
    bank = opened(folder)
    before = bank.file.read_bytes()
    write(folder / "d.wav", burst(0.1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "replace", full)
    with pytest.raises(DataError, match="No space left on device.*set TASK_AWARE_CACHE") as caught:
        opened(folder)
    assert "\n" not in str(caught.value)
    assert bank.file.read_bytes() == before
    assert not list(bank.file.parent.glob("*.tmp"))


def test_a_cache_that_cannot_be_written_says_what_to_set(folder, cache):
    cache.write_text("a file where the folder belongs")
    with pytest.raises(DataError, match="cannot be cached in .* set TASK_AWARE_CACHE"):
        opened(folder)


def test_a_bank_travels_to_other_processes_without_its_samples(folder):
    message = pickle.dumps(opened(folder))
    assert len(message) < 2000
    assert same_as_the_files(pickle.loads(message), folder)


def total(samples: np.ndarray) -> int:
    return int(np.abs(samples.astype(np.int64)).sum())


def open_and_sum(folder: Path, barrier, sums) -> None:
    barrier.wait()
    for _ in range(20):
        bank = opened(folder)
        sums.put(sum(total(bank.read(path).samples) for path in find_audio(folder, folder)))


def test_processes_that_open_it_at_once_read_the_same(folder):
    for number in range(40):
        write(folder / f"{number}.wav", burst(0.3, seed=number))
    context = multiprocessing.get_context("fork")
    barrier, sums = context.Barrier(3), context.Queue()
    processes = [context.Process(target=open_and_sum, args=(folder, barrier, sums)) for _ in range(3)]
    for process in processes:
        process.start()
    found = {sums.get(timeout=60) for _ in range(60)}
    for process in processes:
        process.join()
        assert process.exitcode == 0
    exact = sum(total(np.rint(read_audio(path) * 32768)) for path in folder.iterdir())
    assert found == {exact}


@pytest.mark.parametrize(("level", "reason"), [(1e30, "reaches 1e[+]30"), (1e-30, "is silent")])
def test_sound_whose_energy_has_no_value_is_rejected(tmp_path, level, reason):
    soundfile.write(tmp_path / "x.wav", np.full(1600, level), 16000, subtype="FLOAT")
    with pytest.raises(DataError, match=reason):
        Recordings(tmp_path, [Path("x.wav")], sample_rate=16000, max_broken=0.0, silent_peak=0.0)
