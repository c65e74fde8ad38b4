import numpy as np
import pytest

from task_aware.base.errors import DataError, RecordingError
from task_aware.data import RirBank
from task_aware.data.rirs import list_rirs
from task_aware.data.sofa import forget, read_response
from task_aware.data.verify import verify

from .recordings import write, write_table

sofar = pytest.importorskip("sofar", reason="sofar writes the SOFA files")
netCDF4 = pytest.importorskip("netCDF4")


def write_sofa(path, responses, rate=16000.0, delay=None, convention="SimpleFreeFieldHRIR"):
    """Writes responses `[M, R, N]` or, of a convention with emitters, `[M, R, N, E]`."""
    sofa = sofar.Sofa(convention)
    count, receivers = responses.shape[:2]
    sofa.Data_IR = responses
    sofa.Data_SamplingRate = rate
    sofa.Data_Delay = np.zeros((1, receivers, *responses.shape[3:])) if delay is None else np.asarray(delay)
    sofa.ReceiverPosition = np.zeros((receivers, 3))
    sofa.SourcePosition = np.tile([0.0, 0.0, 1.0], (count, 1))
    if responses.ndim == 4:
        sofa.EmitterPosition = np.zeros((responses.shape[3], 3))
    sofar.write_sofa(str(path), sofa)
    return path


def noise(*shape):
    """Responses whose first sample is the loudest."""
    found = np.random.default_rng(0).uniform(-0.5, 0.5, shape)
    found[:, :, 0] = 1.0
    return found


def names(bank):
    return [[path.as_posix() for path in room] for room in bank.rooms]


def test_each_measurement_and_receiver_is_a_response_as_it_was_written(tmp_path):
    written = noise(3, 2, 64)
    write_sofa(tmp_path / "hall.sofa", written)
    bank = RirBank(tmp_path)
    assert names(bank) == [[f"hall.sofa/r{r}/m{m}e0" for m in range(3)] for r in range(2)]
    for room, of_receiver in zip(bank.rooms, written.swapaxes(0, 1), strict=True):
        for path, expected in zip(room, of_receiver, strict=True):
            found = bank.read(path)
            assert found.samples * found.scale == pytest.approx(expected, abs=2e-5)
            assert np.array_equal(read_response(tmp_path / path, 16000), expected.astype(np.float32))
    assert "6 responses of 2 rooms" in bank.describe()


@pytest.mark.parametrize("last", ["N", "E"])
def test_emitters_are_responses_whatever_the_order_of_the_dimensions(tmp_path, last):
    written = noise(2, 3, 32, 2)
    file = write_sofa(tmp_path / "a.sofa", written, convention="GeneralFIR-E")
    if last == "N":
        with netCDF4.Dataset(file, "a") as dataset:
            dataset.renameVariable("Data.IR", "Old")
            dataset.createVariable("Data.IR", "f8", ("M", "R", "E", "N"))[:] = written.swapaxes(2, 3)
    for m, r, e in np.ndindex(2, 3, 2):
        found = read_response(file / f"r{r}" / f"m{m}e{e}", 16000)
        assert np.array_equal(found, written[m, r, :, e].astype(np.float32))


def test_a_receiver_and_measurements_are_chosen(tmp_path):
    write_sofa(tmp_path / "hall.sofa", noise(4, 2, 16))
    assert names(RirBank(tmp_path, receiver=1, measurements=[0, 2])) == [["hall.sofa/r1/m0e0", "hall.sofa/r1/m2e0"]]
    with pytest.raises(DataError, match="hall.sofa has 2 receivers, but receiver 2 was requested"):
        RirBank(tmp_path, receiver=2)
    with pytest.raises(DataError, match="hall.sofa has 4 measurements .* measurement 4 was requested"):
        RirBank(tmp_path, measurements=[4])


def test_delays_are_put_before_the_response_as_far_as_the_label_allows(tmp_path):
    file = write_sofa(tmp_path / "a.sofa", noise(3, 2, 64), delay=[[0, 5], [10, 3], [4000, 1e9]])
    bank = RirBank(tmp_path)
    starts = {path.as_posix()[-7:]: np.abs(bank.read(path).samples).argmax() for room in bank.rooms for path in room}
    assert list(starts.values()) == [0, 10, 16, 5, 3, 16]
    one_row = write_sofa(tmp_path / "b.sofa", noise(2, 2, 64), delay=[[2, 7]])
    assert [len(read_response(one_row / f"r{r}" / f"m{m}e0", 16000)) for m in (0, 1) for r in (0, 1)] == [66, 71] * 2
    assert len(read_response(file / "r1" / "m2e0", 16000)) == 80


def test_each_measurement_may_have_its_own_sample_rate(tmp_path):
    file = write_sofa(tmp_path / "a.sofa", noise(2, 1, 480), rate=48000.0)
    assert len(read_response(file / "r0" / "m1e0", 16000)) == 160
    with netCDF4.Dataset(file, "a") as dataset:
        dataset.renameVariable("Data.SamplingRate", "Old")
        dataset.createVariable("Data.SamplingRate", "f8", ("M",))[:] = [48000, 16000]
    forget()
    assert [len(read_response(file / "r0" / f"m{m}e0", 16000)) for m in (0, 1)] == [160, 480]


def test_unknown_conventions_are_read_and_values_like_fillings_are_samples(tmp_path):
    written = noise(1, 1, 16)
    file = write_sofa(tmp_path / "a.sofa", written)
    with netCDF4.Dataset(file, "a") as dataset:
        dataset.SOFAConventions, dataset.Version = "OurOwn", "9.9"
        dataset.variables["Data.IR"][0, 0, 3] = netCDF4.default_fillvals["f8"]
    with pytest.raises(ValueError):
        sofar.read_sofa(str(file), verbose=False)
    found = read_response(file / "r0" / "m0e0", 16000)
    assert found[3] == np.float32(netCDF4.default_fillvals["f8"])
    assert np.array_equal(np.delete(found, 3), np.delete(written[0, 0], 3).astype(np.float32))


def transfer_functions(path):
    sofa = sofar.Sofa("SimpleFreeFieldHRTF")
    sofar.write_sofa(str(path), sofa)


def other_dimensions(path):
    with netCDF4.Dataset(write_sofa(path, noise(1, 1, 16)), "a") as dataset:
        dataset.renameDimension("N", "K")


def not_finite(path):
    write_sofa(path, np.full((1, 1, 16), 1e60))


def without_rate(path):
    with netCDF4.Dataset(write_sofa(path, noise(1, 1, 16)), "a") as dataset:
        dataset.renameVariable("Data.SamplingRate", "Old")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (transfer_functions, r"x.sofa \(SimpleFreeFieldHRTF\) has data of the type TF; give a SOFA file with impulse"),
        (other_dimensions, r"x.sofa \(SimpleFreeFieldHRIR\) has Data.IR over M, R, K, expected M, R, N and perhaps E"),
        (not_finite, "x.sofa holds samples or delays that are not finite"),
        (without_rate, "x.sofa has no Data.SamplingRate"),
        (lambda path: path.write_bytes(b"no SOFA file"), "x.sofa cannot be read as a SOFA file"),
    ],
)
def test_a_broken_file_is_one_sentence_and_the_others_are_used(tmp_path, make, said):
    make(tmp_path / "x.sofa")
    write(tmp_path / "good.wav", np.ones(10))
    bank = RirBank(tmp_path, max_broken=0.5)
    assert names(bank) == [["good.wav"]]
    (reason,) = bank.rejected.values()
    with pytest.raises(RecordingError, match=said):
        raise RecordingError(reason)
    (tmp_path / "data").mkdir()
    report = verify(tmp_path / "data", tmp_path, progress=False)
    assert any(reason in problem for problem in report.problems)


def test_a_table_puts_files_into_rooms_by_receiver(tmp_path):
    write(tmp_path / "c.wav", np.ones(10))
    for name in ("a", "b"):
        write_sofa(tmp_path / f"{name}.sofa", noise(1, 2, 16))
    write_table(tmp_path / "rirs.tsv", "filename\troom", "a.sofa\thall", "b.sofa\thall")
    found = {room: [path.as_posix() for path in paths] for room, paths in list_rirs(tmp_path).rooms.items()}
    assert found == {
        "room hall, receiver 0": ["a.sofa/r0/m0e0", "b.sofa/r0/m0e0"],
        "room hall, receiver 1": ["a.sofa/r1/m0e0", "b.sofa/r1/m0e0"],
        "file c.wav": ["c.wav"],
    }


def test_a_file_that_was_written_again_is_read_again(tmp_path):
    for level in (1.0, 0.5):
        write_sofa(tmp_path / "a.sofa", level * noise(1, 1, 16))
        bank = RirBank(tmp_path)
        found = bank.read(bank.rooms[0][0])
        assert found.samples[0] * found.scale == pytest.approx(level, rel=1e-4)
