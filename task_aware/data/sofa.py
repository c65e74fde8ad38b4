"""Room impulse responses in SOFA files (AES69), read by the names of their dimensions.

A file holds measurements M (positions of sources or of the listener), receivers R (microphones, channels, ears) and, in
some, emitters E (loudspeakers). Each response has a path of its own, as if the file were a folder:
`hall.sofa/r0/m12e0` is what receiver 0 got from emitter 0 in measurement 12, all counted from 0.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from task_aware.base.errors import RecordingError, TaskAwareError
from task_aware.data.audio import Header, resample
from task_aware.data.containers import LOWEST_RATE

SUFFIX = ".sofa"

_RESPONSE = re.compile(rf"(.+{re.escape(SUFFIX)})/r(\d+)/m(\d+)e(\d+)", re.IGNORECASE | re.DOTALL)

#: netCDF and HDF5 are not made for threads.
_ONE_AT_A_TIME = threading.RLock()


class _Receiver(NamedTuple):
    """What one receiver got: samples float32 `[M, E, N]`, delays in samples `[M, E]`, sample rates in Hz `[M]`."""

    samples: np.ndarray
    delays: np.ndarray
    rates: np.ndarray


def file_of(path: Path) -> Path:
    """The file that holds a response: the SOFA file of one in it, otherwise the path itself."""
    found = _RESPONSE.fullmatch(path.as_posix())
    return path if found is None else Path(found[1])


def is_sofa(path: Path) -> bool:
    """Whether a path is a SOFA file or a response in one."""
    return file_of(path).suffix.lower() == SUFFIX


def list_responses(
    file: Path, name: Path, *, receiver: int | None = None, measurements: Sequence[int] | None = None
) -> dict[str, list[Path]]:
    """The paths of the responses in a SOFA file, as parts of `name`, by receiver: `receiver 0` and so on.

    Args:
        file: the file.
        name: what it is called in the paths.
        receiver, measurements: those to take, whether they exist or not (whoever reads them finds out); default: all.

    Raises:
        RecordingError: it is no SOFA file, or one without impulse responses.
        TaskAwareError: netCDF4 is not installed.
    """
    with _opened(file) as dataset:
        sizes = {axis: dataset.dimensions[axis].size for axis in _responses(dataset, file).dimensions}
    receivers = range(sizes["R"]) if receiver is None else [receiver]
    chosen = range(sizes["M"]) if measurements is None else measurements
    return {
        f"receiver {r}": [name / f"r{r}" / f"m{m}e{e}" for m in chosen for e in range(sizes.get("E", 1))]
        for r in receivers
    }


def response_header(path: Path) -> Header:
    """Length, sample rate and number of channels (1) of a response in a SOFA file; raises as `read_response`."""
    samples, rate = _response(path)
    return Header(len(samples) / rate, rate, 1)


def read_response(path: Path, sample_rate: int) -> np.ndarray:
    """A response in a SOFA file as float32 `[N]` at `sample_rate`.

    Of its Data.Delay, the last millisecond is put before it, as zeros: the rest would be trimmed again, since
    responses begin a millisecond before their direct sound (`RirBank`).

    Raises RecordingError if the file is broken or has no such response.
    """
    samples, rate = _response(path)
    return samples if rate == sample_rate else resample(path, samples, rate, sample_rate)


def forget() -> None:
    """Frees the memory of the receiver that was read last."""
    with _ONE_AT_A_TIME:
        _read.cache_clear()


def _response(path: Path) -> tuple[np.ndarray, int]:
    """A response with the last millisecond of its delay, and its sample rate."""
    found = _RESPONSE.fullmatch(path.as_posix())
    if found is None:
        list_responses(path, path)
        raise RecordingError(f"{path} is none of the responses in a SOFA file; give one of them.")
    file, (receiver, m, e) = Path(found[1]), map(int, found.groups()[1:])
    with _ONE_AT_A_TIME:
        samples, delays, rates = _read(file, receiver)
    if m >= len(samples) or e >= samples.shape[1]:
        raise RecordingError(
            f"{file} has {samples.shape[0]} measurements of {samples.shape[1]} emitters, but measurement {m} was "
            "requested; count from 0, or take all."
        )
    rate = round(rates[m])
    delay = min(round(delays[m, e]), round(0.001 * rate))
    return np.pad(samples[m, e], (max(delay, 0), 0)), rate


@lru_cache(maxsize=1)
def _read(file: Path, receiver: int) -> _Receiver:
    """All responses of one receiver: of one only, a compressed file would be unpacked again for each."""
    with _opened(file) as dataset:
        responses = _responses(dataset, file)
        count = dataset.dimensions["R"].size
        if receiver >= count:
            raise RecordingError(
                f"{file} has {count} receivers, but receiver {receiver} was requested; count from 0, or take all."
            )
        samples = _of_receiver(responses, receiver, file)
        variables = dataset.variables
        if "Data.SamplingRate" not in variables:
            raise RecordingError(f"{file} has no Data.SamplingRate; write the file again with it.")
        rates = _of_receiver(variables["Data.SamplingRate"], receiver, file)[:, 0, 0]
        delays = np.zeros((1, 1))
        if "Data.Delay" in variables:
            delays = _of_receiver(variables["Data.Delay"], receiver, file)[..., 0]
    if not samples.size:
        raise RecordingError(f"{file} holds no samples; replace or remove it.")
    if not (np.isfinite(samples).all() and np.isfinite(delays).all()):
        raise RecordingError(f"{file} holds samples or delays that are not finite; replace or remove it.")
    if not (np.isfinite(rates).all() and rates.min() >= LOWEST_RATE and rates.max() < 2**31):
        raise RecordingError(f"{file} has sample rates from {rates.min():g} to {rates.max():g} Hz; correct them.")
    M, E = samples.shape[:2]
    return _Receiver(samples, np.broadcast_to(delays, (M, E)), np.broadcast_to(rates, M))


def _of_receiver(variable: Any, receiver: int, file: Path) -> np.ndarray:
    """A variable `[M, E, N]` for one receiver; axes that it lacks, or that have one entry for all (I), have length 1.

    Raises RecordingError if it has other axes.
    """
    axes = variable.dimensions
    if not set(axes) <= set("MRENI"):
        raise RecordingError(f"{file} has {variable.name} over {', '.join(axes)}, expected some of M, R, E, N and I.")
    index = tuple({"R": receiver, "I": 0}.get(axis, slice(None)) for axis in axes)
    kept = [axis for axis in axes if axis not in "RI"]
    with np.errstate(over="ignore"):  # becomes infinite, which the caller refuses
        values = np.asarray(variable[index], dtype=np.float32 if "N" in axes else np.float64)
    values = values.transpose([kept.index(axis) for axis in "MEN" if axis in kept])
    lacking = tuple(place for place, axis in enumerate("MEN") if axis not in kept)
    return np.expand_dims(values, lacking)


def _responses(dataset: Any, file: Path) -> Any:
    """The variable Data.IR. Raises RecordingError if the file has none over measurements, receivers and samples."""
    convention = getattr(dataset, "SOFAConventions", "no convention")
    if "Data.IR" not in dataset.variables:
        kind = getattr(dataset, "DataType", "unknown")
        raise RecordingError(
            f"{file} ({convention}) has data of the type {kind}; give a SOFA file with impulse responses, FIR or FIR-E."
        )
    responses = dataset.variables["Data.IR"]
    if sorted(responses.dimensions) not in (sorted("MRN"), sorted("MREN")):
        raise RecordingError(
            f"{file} ({convention}) has Data.IR over {', '.join(responses.dimensions)}, expected M, R, N and perhaps E."
        )
    return responses


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Opens a SOFA file; what is wrong with it is a RecordingError."""
    try:
        import netCDF4
    except ImportError as error:
        raise TaskAwareError(
            f"{file} needs netCDF4, which cannot be imported ({error}); run `pip install '.[sofa]'` in the checkout"
        ) from error
    try:
        with _ONE_AT_A_TIME, netCDF4.Dataset(file) as dataset:
            dataset.set_auto_mask(False)  # the sample 9.97e36 is a sample
            yield dataset
    except RecordingError:
        raise
    except Exception as error:  # whatever the libraries raise for a broken file
        raise RecordingError(f"{file} cannot be read as a SOFA file ({error}); replace or remove it.") from error
