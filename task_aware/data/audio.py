"""Reading and writing recordings."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from task_aware.base.errors import DataError, RecordingError
from task_aware.base.files import cannot_write, replacing
from task_aware.data.blocks import BLOCK_SECONDS, decoded, read_blocks, resampled
from task_aware.data.containers import open_sound
from task_aware.data.finding import AUDIO_SUFFIXES

#: Largest peak of a mixture written as 16-bit audio; louder mixtures are scaled down to it.
LARGEST = 0.999


class Header(NamedTuple):
    """Length and format of a recording, as its header states them."""

    seconds: float
    sample_rate: int
    channels: int


def audio_header(path: Path) -> Header:
    """Reads the header of a recording without decoding its samples, unless only they tell its length.

    Raises RecordingError if the file cannot be opened, is known to be cut off, or holds no samples.
    """
    with open_sound(path) as sound:
        n_frames = sound.expected
        if n_frames is None:
            n_frames = sum(map(len, decoded(path, sound, BLOCK_SECONDS)))
        elif n_frames and sound.format == "FLAC":
            _check_end(path, n_frames)
    if not n_frames:
        raise RecordingError(f"{path} holds no samples; replace or remove it.")
    return Header(n_frames / sound.samplerate, sound.samplerate, sound.channels)


def _check_end(path: Path, n_frames: int) -> None:
    """Raises RecordingError if the last frame cannot be read."""
    try:
        with soundfile.SoundFile(path) as file:
            file.seek(n_frames - 1)
            found = len(file.read(1))
    except soundfile.SoundFileError:
        found = 0
    if not found:
        raise RecordingError(f"{path} is truncated: it ends before the {n_frames} samples it states; copy it again.")


def audio_seconds(path: Path) -> float:
    """Duration in seconds, from the header alone. Raises RecordingError if the file cannot be opened."""
    return audio_header(path).seconds


def read_audio(path: str | Path, sample_rate: int = 16000, *, channel: int | None = None) -> np.ndarray:
    """Reads a recording as float32 [N] at `sample_rate`, with full scale at 1.

    Channels are averaged unless `channel` selects one; of an Ambisonic file, W is taken (see `read_blocks`). The
    samples are resampled (band-limited) only if the file has another rate.

    Raises RecordingError if the file is missing, undecodable, truncated, empty or not finite, or lacks that channel.
    """
    return np.concatenate(list(read_blocks(path, sample_rate, channel=channel)))


def write_audio(path: str | Path, samples: np.ndarray, sample_rate: int) -> None:
    """Writes float samples [N] as 16-bit audio, in the format that the suffix of `path` names.

    A .wav with samples beyond full scale is written as 32-bit float instead of being clipped. The file is written
    completely or not at all.

    Raises:
        ValueError: the samples are not [N], not finite, or beyond full scale in a format without floats; or the
            suffix is unknown.
        OutputError: the file cannot be written.
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
        try:
            soundfile.write(temporary, samples, sample_rate, format=suffix[1:].upper(), subtype=subtype)
        except soundfile.SoundFileError as error:
            raise cannot_write(path, error) from error
        if subtype == "FLOAT":
            _remove_time(temporary)


def _remove_time(path: Path) -> None:
    """Clears the time that libsndfile writes beside the peak of floats, so that equal sounds are equal files."""
    with path.open("r+b") as file:
        at = file.read(256).find(b"PEAK")
        if at >= 0:
            file.seek(at + 12)
            file.write(bytes(4))


def resample(path: Path, samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Resamples float32 `[..., N]`, band-limited, in memory that grows with N alone; errors name `path`."""
    try:
        rows = [
            np.concatenate(list(resampled([np.ascontiguousarray(row)], rate, sample_rate)))
            for row in samples.reshape(-1, samples.shape[-1])
        ]
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"{path} cannot be resampled from {rate} Hz to {sample_rate} Hz ({error}); give its real rate."
        ) from error
    return np.stack(rows).reshape(*samples.shape[:-1], -1)
