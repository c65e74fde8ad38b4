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

#: The largest sample of what is mixed to be written at 16 bit; what is louder is turned down.
LARGEST = 0.999


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


class Header(NamedTuple):
    """What a recording says of itself."""

    seconds: float
    sample_rate: int
    channels: int


def audio_header(path: Path) -> Header:
    """Length and form of a recording, undecoded. Raises RecordingError for a file that cannot be opened."""
    try:
        header = soundfile.info(path)
    except (OSError, RuntimeError) as error:
        raise RecordingError(_unreadable(path, error)) from error
    if header.frames <= 0:
        raise RecordingError(f"{path} holds no samples; replace or remove it.")
    return Header(header.frames / header.samplerate, header.samplerate, header.channels)


def audio_seconds(path: Path) -> float:
    """Duration in seconds from the header alone. Raises RecordingError for a file that cannot be opened."""
    return audio_header(path).seconds


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
        mono = resample(path, mono, rate, sample_rate)
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
    with replacing(path) as temporary:
        soundfile.write(temporary, samples, sample_rate, format=suffix[1:].upper(), subtype=subtype)


def _unreadable(path: Path, error: Exception) -> str:
    reason = str(error).rstrip(".").removeprefix(f"Error opening {str(path)!r}: ")
    return f"{path} cannot be decoded ({reason}); replace or remove it."


def resample(path: Path, samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Samples `[..., N]` at another rate, by band-limited sinc; `path` is what an error names.

    Raises DataError where torchaudio cannot be imported.
    """
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
