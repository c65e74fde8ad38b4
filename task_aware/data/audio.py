"""Reading and writing recordings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from task_aware.base.errors import DataError
from task_aware.base.files import replacing

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg")

#: Largest peak of a mixture written as 16-bit audio; louder mixtures are scaled down to it.
LARGEST = 0.999


class RecordingError(DataError):
    """A single recording cannot be used: it is missing, broken, empty, silent or not finite."""


def is_audio(path: Path) -> bool:
    """Whether `path` is named like a recording; hidden files (such as macOS's `._x.wav`) are not."""
    return path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")


def find_audio(folder: Path, relative_to: Path) -> list[Path]:
    """Lists all recordings below `folder` as paths relative to `relative_to`, sorted by name."""
    # os.walk, because rglob does not follow linked folders, and data sets are often assembled from links
    walk = os.walk(folder, followlinks=True)
    found = [Path(parent, name) for parent, _, names in walk for name in names if is_audio(Path(name))]
    return sorted((path.relative_to(relative_to) for path in found), key=lambda path: path.as_posix())


class Header(NamedTuple):
    """Length and format of a recording, as its header states them."""

    seconds: float
    sample_rate: int
    channels: int


def audio_header(path: Path) -> Header:
    """Reads the header of a recording without decoding its samples.

    Raises RecordingError if the file cannot be opened or holds no samples.
    """
    try:
        header = soundfile.info(path)
    except (OSError, RuntimeError) as error:
        raise RecordingError(_unreadable(path, error)) from error
    if header.frames <= 0:
        raise RecordingError(f"{path} holds no samples; replace or remove it.")
    return Header(header.frames / header.samplerate, header.samplerate, header.channels)


def audio_seconds(path: Path) -> float:
    """Duration in seconds, from the header alone. Raises RecordingError if the file cannot be opened."""
    return audio_header(path).seconds


def read_audio(path: str | Path, sample_rate: int = 16000, *, channel: int | None = None) -> np.ndarray:
    """Reads a recording as float32 [N] at `sample_rate`, with full scale at 1.

    Channels are averaged unless `channel` selects one. The samples are resampled (band-limited sinc) only if the file
    has another rate.

    Raises:
        RecordingError: the file is missing, undecodable, empty or not finite, or lacks that channel.
        DataError: the file has another rate and torchaudio cannot be imported.
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
        raise RecordingError(f"{path} has {samples.shape[1]} channels, but channel {channel} was requested.")
    if not np.isfinite(mono).all():
        raise RecordingError(f"{path} holds samples that are not finite; replace or remove it.")
    if rate != sample_rate:
        mono = resample(path, mono, rate, sample_rate)
    return np.ascontiguousarray(mono)


def write_audio(path: str | Path, samples: np.ndarray, sample_rate: int) -> None:
    """Writes float samples [N] as 16-bit audio, in the format that the suffix of `path` names.

    A .wav with samples beyond full scale is written as 32-bit float instead of being clipped. The file is written
    completely or not at all.

    Raises:
        ValueError: the samples are not [N], not finite, or beyond full scale in a format without floats; or the
            suffix is unknown.
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
        raise ValueError(f"samples for {path} reach {peak:.3g}, beyond full scale (1); scale them or write a .wav.")
    with replacing(path) as temporary:
        soundfile.write(temporary, samples, sample_rate, format=suffix[1:].upper(), subtype=subtype)


def _unreadable(path: Path, error: Exception) -> str:
    reason = str(error).rstrip(".").removeprefix(f"Error opening {str(path)!r}: ")
    return f"{path} cannot be decoded ({reason}); replace or remove it."


def resample(path: Path, samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Resamples `[..., N]` by band-limited sinc interpolation; errors name `path`.

    Raises DataError if torchaudio cannot be imported.
    """
    try:
        import torch
        import torchaudio.functional
    except Exception as error:  # a torchaudio built for another torch raises OSError or RuntimeError
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{path} must be resampled from {rate} Hz to {sample_rate} Hz, but torchaudio cannot be imported "
            f"({reason}); install a torchaudio that matches this torch, or resample the recordings."
        ) from error
    # a copy: torch.from_numpy warns about read-only arrays, and a single channel is strided
    return torchaudio.functional.resample(torch.tensor(samples), rate, sample_rate).numpy()
