"""A cache of decoded recordings: one memory-mapped file per folder, shared by all processes and later runs."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import mmap
import os
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from task_aware.base.errors import DataError, RecordingError
from task_aware.data import sofa
from task_aware.data.audio import read_audio
from task_aware.data.levels import (
    SPECTRUM_BINS,
    Frames,
    audible,
    constant_offset,
    direct_sound,
    frame_samples,
    power_spectrum,
)

#: Version of the cache's file layout; part of its path.
VERSION = 4

_FULL_SCALE = 32768.0

#: A recording whose peak is below this, one 16-bit step, is silent.
SILENT_PEAK = 1.0 / _FULL_SCALE

#: What is kept of a room impulse response before its direct sound, seconds.
LEAD_SECONDS = 0.001

#: Peaks between which energies have a value in 32 bits; no recording is near either.
QUIETEST_PEAK, LOUDEST_PEAK = 1e-15, 1e12

_AT_ONCE = 256  # files decoded as one batch, which bounds memory

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The cache folder: $TASK_AWARE_CACHE, else $XDG_CACHE_HOME/task_aware, else ~/.cache/task_aware."""
    if chosen := os.environ.get("TASK_AWARE_CACHE"):
        return Path(chosen).expanduser()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "task_aware"
    try:
        return Path.home() / ".cache/task_aware"
    except RuntimeError as error:
        raise DataError(
            "this user has no home folder to cache in; set TASK_AWARE_CACHE to a writable folder"
        ) from error


class Recording(NamedTuple):
    """A cached recording; the arrays are read-only views of the cache file.

    Attributes:
        samples: int16 [N]; multiplied by `scale` they are the recording, without a constant offset, with full scale
            at 1.
        scale: 1 / 32768 if the file is 16 bit, mono and at the requested rate, so that nothing is lost; otherwise such
            that the peak uses the whole 16-bit range.
        frames: energies of the 20 ms frames of what is `levels.audible` (of a response, of all).
        spectrum: float16 [SPECTRUM_BINS], the square root of the `levels.power_spectrum` of the same.
    """

    samples: np.ndarray
    scale: float
    frames: Frames
    spectrum: np.ndarray

    def power(self) -> np.ndarray:
        """The recording's `levels.power_spectrum`, float32 [SPECTRUM_BINS]."""
        return np.square(self.spectrum, dtype=np.float32)


class Recordings:
    """Recordings below one folder, as 16-bit integers at one sample rate.

    On first use they are decoded into one file below `cache_folder()`, specific to this folder, rate, channel and
    length. Later runs reuse it for every recording whose size and times are unchanged. The cache file is
    replaced as a whole, so that processes that have the old one open can continue to read it.

    Attributes:
        rejected: broken, empty, silent and non-finite files (relative path: reason), remembered until they change.
        offsets: the constant offsets that were taken out of files (relative path: offset, full scale at 1).

    Args:
        root: the folder that the paths are relative to.
        paths: the files.
        sample_rate: sample rate to decode to, Hz.
        max_broken: share of the files that may be rejected.
        silent_peak: a file with a lower peak (or of zeros) is silent; by default one 16-bit step.
        channel: the channel to keep; None averages all channels.
        responses: the files are room impulse responses: each begins 1 ms before its direct sound (if it has that much
            before it), whatever its delay, and has no offset.
        max_samples: length at which recordings are cut, samples.

    Raises:
        ValueError: `max_broken` is not between 0 and 1.
        DataError: too many files are rejected, or the cache cannot be written.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[Path],
        *,
        sample_rate: int,
        max_broken: float,
        silent_peak: float = SILENT_PEAK,
        channel: int | None = None,
        responses: bool = False,
        max_samples: int | None = None,
    ) -> None:
        if not 0.0 <= max_broken <= 1.0:
            raise ValueError(f"max_broken must be between 0 and 1, got {max_broken}.")
        self.root = root
        self.sample_rate = sample_rate
        self._silent_peak = silent_peak
        self._channel = channel
        self._responses = responses
        self._max_samples = max_samples
        identity = f"{root.resolve()}\0{sample_rate}\0{channel}\0{responses}\0{max_samples}\0{silent_peak}"
        name = f"{root.name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.bin"
        self.file = cache_folder() / f"recordings-v{VERSION}" / name
        names = [path.as_posix() for path in paths]
        self._open()
        if not all(map(self._is_fresh, names)):
            self._update(names)
        self.rejected = {name: self._index[name]["reason"] for name in names if "reason" in self._index[name]}
        for reason in self.rejected.values():
            _log.warning("Skipped: %s", reason)
        self.offsets = {name: self._index[name]["offset"] for name in names if self._index[name].get("offset")}
        if self.offsets:
            name, offset = max(self.offsets.items(), key=lambda item: abs(item[1]))
            _log.warning(
                "%d of the %d recordings in %s have a constant offset, which is taken out of them (up to %.2g in %s)",
                len(self.offsets),
                len(paths),
                root,
                offset,
                name,
            )
        if len(self.rejected) > max_broken * len(paths):
            raise DataError(
                f"{len(self.rejected)} of {len(paths)} recordings in {root} are unusable, but at most "
                f"{max_broken:.0%} may be. The last one: {reason}"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bytes": None, "_index": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def usable(self, paths: Iterable[Path]) -> list[Path]:
        """The files that are not rejected."""
        return [path for path in paths if path.as_posix() not in self.rejected]

    def read(self, path: Path) -> Recording:
        """Reads one of the files from the cache. Raises RecordingError if it is rejected."""
        entry = self._index[path.as_posix()]
        if "reason" in entry:
            raise RecordingError(entry["reason"])
        count, length = entry["n_samples"], frame_samples(self.sample_rate)
        n_frames = -(-count // length)
        at = entry["start"]
        energies = np.frombuffer(self._bytes, np.float32, n_frames, at)
        spectrum = np.frombuffer(self._bytes, np.float16, SPECTRUM_BINS, at + 4 * n_frames)
        samples = np.frombuffer(self._bytes, np.int16, count, at + 4 * n_frames + 2 * SPECTRUM_BINS)
        return Recording(samples, entry["scale"], Frames(energies, count, length), spectrum)

    def seconds(self, path: Path) -> float:
        """Duration in seconds of a file that is not rejected."""
        return self._index[path.as_posix()]["n_samples"] / self.sample_rate

    def _open(self) -> None:
        """Maps the cache file as it is now; a missing or damaged one counts as empty."""
        self._index: dict[str, dict[str, Any]] = {}
        self._bytes: mmap.mmap | bytes = b""
        try:
            with self.file.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            end, digest = (int.from_bytes(self._bytes[-12:-4], "little"), int.from_bytes(self._bytes[-4:], "little"))
            index = self._bytes[end:-12]
            if zlib.crc32(index) == digest:
                self._index = json.loads(index)
        except (OSError, ValueError):
            pass

    def _is_fresh(self, name: str) -> bool:
        entry = self._index.get(name)
        return entry is not None and entry["state"] == _state(self.root / name)

    def _update(self, names: Sequence[str]) -> None:
        """Rewrites the cache file: copies fresh entries, decodes the others, drops those whose file is gone."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.file.with_suffix(".lock")):
                self._open()  # another process may have just written it
                stale = [name for name in names if not self._is_fresh(name)]
                if not stale:
                    return
                temporary = self.file.with_suffix(".tmp")
                try:
                    self._write(temporary, stale)
                    os.replace(temporary, self.file)
                finally:
                    temporary.unlink(missing_ok=True)
                self._open()
        except OSError as error:
            raise DataError(
                f"The decoded recordings of {self.root} cannot be cached in {self.file.parent} "
                f"({error.strerror or error}); set TASK_AWARE_CACHE to a writable folder with enough free space."
            ) from error

    def _write(self, path: Path, stale: Sequence[str]) -> None:
        # entries that this run does not use are kept while their recordings exist: another run may use them
        index = {name: entry for name, entry in self._index.items() if self._is_fresh(name)}
        with path.open("wb") as file, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            for entry in index.values():
                if "start" in entry:
                    old = entry["start"]
                    entry["start"] = file.tell()
                    file.write(self._bytes[old : old + entry["n_bytes"]])
            with tqdm(total=len(stale), desc=f"decode {self.root.name}", unit="file") as bar:
                for first in range(0, len(stale), _AT_ONCE):
                    batch = stale[first : first + _AT_ONCE]
                    for name, (entry, content) in zip(batch, threads.map(self._decode, batch), strict=True):
                        index[name] = entry | ({"start": file.tell()} if content else {})
                        file.write(content)
                        bar.update()
            end = file.tell()
            content = json.dumps(index).encode()
            file.write(content + end.to_bytes(8, "little") + zlib.crc32(content).to_bytes(4, "little"))

    def _decode(self, name: str) -> tuple[dict[str, Any], bytes]:
        """The index entry of a file and the bytes that `read` expects at its start."""
        path = self.root / name
        entry: dict[str, Any] = {"state": _state(path)}
        try:
            samples = (
                sofa.read_response(path, self.sample_rate)
                if sofa.is_sofa(path)
                else read_audio(path, self.sample_rate, channel=self._channel)
            )
            peak = float(np.abs(samples).max())
            if peak > LOUDEST_PEAK:
                raise RecordingError(f"{path} reaches {peak:.3g}, but full scale is 1; replace or remove it.")
            offset = 0.0
            if self._responses:
                start = max(0, direct_sound(samples) - round(LEAD_SECONDS * self.sample_rate))
                samples = sound = samples[start:][: self._max_samples]
            else:
                # in whole steps, so that 16-bit samples stay such
                offset = round(constant_offset(samples, self.sample_rate) * _FULL_SCALE) / _FULL_SCALE
                samples = samples[: self._max_samples] - np.float32(offset)
                sound = audible(samples, self.sample_rate)
            peak = float(np.abs(sound).max())
            if not math.isfinite(peak):
                raise RecordingError(f"{path} exceeds what numbers can hold; replace or remove it.")
            if peak < max(self._silent_peak, QUIETEST_PEAK):
                raise RecordingError(f"{path} is silent; replace or remove it.")
        except RecordingError as error:
            return entry | {"reason": str(error)}, b""
        integers, scale = to_integers(samples)
        energies = Frames.of(sound, self.sample_rate).energies.astype(np.float32)
        spectrum = np.sqrt(power_spectrum(sound)).astype(np.float16)
        content = energies.tobytes() + spectrum.tobytes() + integers.tobytes()
        content += bytes(-len(content) % 4)  # aligns the energies of the next recording
        entry |= {"n_samples": len(samples), "n_bytes": len(content), "scale": scale, "offset": offset}
        return entry, content


def to_integers(samples: np.ndarray) -> tuple[np.ndarray, float]:
    """Converts float32 [N] to int16 [N] and a scale; lossless for 16-bit samples, else using the whole 16-bit range."""
    integers = np.rint(samples * _FULL_SCALE)
    if (
        np.array_equal(integers, samples * _FULL_SCALE)
        and integers.min() >= -_FULL_SCALE
        and integers.max() < _FULL_SCALE
    ):
        return integers.astype(np.int16), 1.0 / _FULL_SCALE
    scale = float(np.abs(samples).max()) / (_FULL_SCALE - 1.0)
    return np.rint(samples / scale).astype(np.int16), scale


def _state(path: Path) -> list[int] | None:
    """Size and times, by which a changed file is detected; None if there is no file.

    The modification time can be copied with a file, or be as coarse as two seconds; the time of the last change of the
    file system's entry is neither.
    """
    try:
        found = sofa.file_of(path).stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
