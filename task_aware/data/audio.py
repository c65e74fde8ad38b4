"""Reading and writing recordings, and a bounded cache of them in memory."""

from __future__ import annotations

import logging
import os
import uuid
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from task_aware.errors import DataError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg")

_FULL_SCALE = 32768.0
_log = logging.getLogger(__name__)


class RecordingError(DataError):
    """One recording is missing, broken, empty, silent or non-finite; others may be fine."""


def is_audio(path: Path) -> bool:
    """Whether the name is that of a recording; hidden files (`._x.wav` of macOS) are none."""
    return path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")


def find_audio(folder: Path, relative_to: Path) -> list[Path]:
    """All recordings below `folder`, as paths relative to `relative_to`, in an order of names alone."""
    # os.walk, because rglob does not enter linked folders, and data sets are often assembled from links
    walk = os.walk(folder, followlinks=True)
    found = [Path(parent, name) for parent, _, names in walk for name in names if is_audio(Path(name))]
    return sorted((path.relative_to(relative_to) for path in found), key=lambda path: path.as_posix())


def audio_seconds(path: Path) -> float:
    """Duration in seconds from the header alone. Raises RecordingError for a file that cannot be opened."""
    try:
        header = soundfile.info(path)
    except (OSError, RuntimeError) as error:
        raise RecordingError(_unreadable(path, error)) from error
    if header.frames <= 0:
        raise RecordingError(f"{path} holds no samples; replace or remove it.")
    return header.frames / header.samplerate


def read_audio(path: str | Path, sample_rate: int = 16000, *, channel: int | None = None) -> np.ndarray:
    """A recording as float32 [N] at `sample_rate`, full scale 1.

    Channels are averaged, or `channel` alone is kept. Resampled (band-limited sinc) only if the rates differ.

    Raises:
        RecordingError: a missing, undecodable, empty or non-finite file, or one without that channel.
        DataError: the rates differ and torchaudio cannot be imported.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordingError(f"{path} is not a file; check the folder and the name.")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise RecordingError(_unreadable(path, error)) from error
    if not len(samples):
        raise RecordingError(f"{path} holds no samples; replace or remove it.")
    if channel is None:
        mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    elif channel < samples.shape[1]:
        mono = samples[:, channel]
    else:
        raise RecordingError(f"{path} has {samples.shape[1]} channels and channel {channel} is wanted.")
    if not np.isfinite(mono).all():
        raise RecordingError(f"{path} holds samples that are not finite; replace or remove it.")
    if rate != sample_rate:
        mono = _resample(path, mono, rate, sample_rate)
    return np.ascontiguousarray(mono)


def write_audio(path: str | Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write float samples [N] as 16 bit, by the suffix of `path`; the file appears whole or not at all.

    A .wav beyond full scale is written as 32-bit float instead of being clipped.

    Raises:
        ValueError: samples not [N], not finite, or beyond full scale in a format without floats; an unknown
            suffix.
    """
    path = Path(path)
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise ValueError(f"samples must have the shape [N], got {list(samples.shape)}.")
    if not np.isfinite(samples).all():
        raise ValueError(f"samples for {path} must be finite, got NaN or infinity.")
    suffix = path.suffix.lower()
    if suffix not in AUDIO_SUFFIXES:
        raise ValueError(f"{path} must end in one of {', '.join(AUDIO_SUFFIXES)}.")
    subtype = "VORBIS" if suffix == ".ogg" else "PCM_16"
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > 1.0 and suffix == ".wav":
        subtype = "FLOAT"
    elif peak > 1.0:
        raise ValueError(f"samples for {path} reach {peak:.3g}, beyond full scale 1: scale them or write a .wav.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        soundfile.write(temporary, samples, sample_rate, format=suffix[1:].upper(), subtype=subtype)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _unreadable(path: Path, error: Exception) -> str:
    reason = str(error).rstrip(".").removeprefix(f"Error opening {str(path)!r}: ")
    return f"{path} cannot be decoded ({reason}); replace or remove it."


def _resample(path: Path, samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    try:
        import torch
        import torchaudio.functional
    except Exception as error:  # torchaudio raises OSError or RuntimeError beside a torch it was not built for
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{path} is at {rate} Hz, {sample_rate} Hz is wanted and torchaudio, which would resample it, "
            f"cannot be imported ({reason}); resample the recordings or install a torchaudio for this torch."
        ) from error
    # a copy: torch.from_numpy warns about arrays it may not write to and strided channels
    return torchaudio.functional.resample(torch.tensor(samples), rate, sample_rate).numpy()


class RecordingCache:
    """Recordings below one root, kept in memory as 16-bit integers; the least recently used ones go first.

    A file is stored without loss if it is 16 bit, mono and at `sample_rate`, otherwise at 16 bit below its
    peak. Under fork, workers share what was read before; under spawn each starts empty.

    Broken, empty, silent and non-finite files are listed in `rejected` (relative path: reason) and logged
    once; reading one raises RecordingError each time, so that what a caller draws does not depend on what was
    read before.

    Args:
        root: the folder the paths are relative to.
        n_files: how many files there are, of which the share `max_broken` may be rejected.
        cache_bytes: the most memory to use for samples.
        silent_peak: a file that stays below it (and one of zeros) is silent; by default one step of 16 bit.
        channel: the channel to keep; None for the mean.
    """

    def __init__(
        self,
        root: Path,
        n_files: int,
        *,
        sample_rate: int,
        cache_bytes: int,
        max_broken: float,
        silent_peak: float = 1.0 / _FULL_SCALE,
        channel: int | None = None,
    ) -> None:
        if not 0.0 <= max_broken <= 1.0:
            raise ValueError(f"max_broken must be a share between 0 and 1, got {max_broken}.")
        self.root = root
        self.sample_rate = sample_rate
        self.rejected: dict[str, str] = {}
        self._n_files = n_files
        self._cache_bytes = cache_bytes
        self._max_broken = max_broken
        self._silent_peak = silent_peak
        self._channel = channel
        self._samples: OrderedDict[str, tuple[np.ndarray, np.float32]] = OrderedDict()
        self._bytes = 0

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_samples": OrderedDict(), "_bytes": 0}

    def read(self, path: Path) -> np.ndarray:
        """The recording as float32 [N]: a fresh array.

        Raises:
            RecordingError: this file is broken, empty, silent or non-finite.
            DataError: more than the share `max_broken` of the files is.
        """
        name = path.as_posix()
        if name in self._samples:
            self._samples.move_to_end(name)
            integers, scale = self._samples[name]
        else:
            if name in self.rejected:
                raise RecordingError(self.rejected[name])
            try:
                integers, scale = _to_integers(self._load(path))
            except RecordingError as error:
                self.reject(path, str(error))
                raise
            self._store(name, integers, scale)
        return integers * scale

    def preload(self, paths: Iterable[Path]) -> None:
        """Read files until the cache is full. Raises DataError if too many are unusable."""
        for path in paths:
            if path.as_posix() in self.rejected:
                continue
            try:
                samples = self.read(path)
            except RecordingError:
                continue  # listed in `rejected` by now
            if self._bytes + 2 * len(samples) > self._cache_bytes:
                break

    def seconds(self, path: Path) -> float | None:
        """Duration from the header alone; None, and the file listed in `rejected`, if it cannot be opened."""
        if path.as_posix() in self.rejected:
            return None
        try:
            return audio_seconds(self.root / path)
        except RecordingError as error:
            self.reject(path, str(error))
            return None

    def reject(self, path: Path, reason: str) -> None:
        """List a file as unusable. Raises DataError once too many are."""
        if path.as_posix() not in self.rejected:
            self.rejected[path.as_posix()] = reason
            _log.warning("Left out: %s", reason)
        if len(self.rejected) > self._max_broken * self._n_files:
            raise DataError(
                f"{len(self.rejected)} of {self._n_files} recordings in {self.root} are unusable and at most "
                f"{self._max_broken:.0%} may be; the last one: {reason}"
            )

    def _load(self, path: Path) -> np.ndarray:
        samples = read_audio(self.root / path, self.sample_rate, channel=self._channel)
        peak = float(np.abs(samples).max())
        if peak == 0.0 or peak < self._silent_peak:
            raise RecordingError(f"{self.root / path} is silent; replace or remove it.")
        return samples

    def _store(self, name: str, integers: np.ndarray, scale: np.float32) -> None:
        if integers.nbytes > self._cache_bytes:
            return
        while self._bytes + integers.nbytes > self._cache_bytes:
            _, (dropped, _) = self._samples.popitem(last=False)
            self._bytes -= dropped.nbytes
        self._samples[name] = (integers, scale)
        self._bytes += integers.nbytes


def _to_integers(samples: np.ndarray) -> tuple[np.ndarray, np.float32]:
    integers = np.rint(samples * _FULL_SCALE)
    if (
        np.array_equal(integers, samples * _FULL_SCALE)
        and integers.min() >= -_FULL_SCALE
        and integers.max() < _FULL_SCALE
    ):
        return integers.astype(np.int16), np.float32(1.0 / _FULL_SCALE)
    scale = float(np.abs(samples).max()) / (_FULL_SCALE - 1.0)
    return np.rint(samples / scale).astype(np.int16), np.float32(scale)
