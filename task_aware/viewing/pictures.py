"""Mel-spectrograms of recordings of any length as PNG pictures: one of the whole, and tiles of a long one.

The columns of all pictures are of the same length, and their colours are dB below the loudest place of the recording.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

from task_aware.base.files import replacing
from task_aware.models.features import FeatureConfig
from task_aware.plots.canvas import RANGE_DB

#: Columns of a tile, and most columns of the picture of the whole; a recording that has no more needs no tiles.
TILE, WHOLE = 1024, 2048

COLUMNS_PER_SECOND = 32
STEP_DB = 1.5

_N_LEVELS = round(RANGE_DB / STEP_DB) + 1
_PALETTE = (matplotlib.colormaps["magma"](np.linspace(0, 1, _N_LEVELS))[:, :3] * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class Pictures:
    """A mel-spectrogram as pictures.

    Attributes:
        whole: a picture of the whole, as a `data:` URL.
        span: seconds that its columns last, which may end after the recording.
        tiles: names of the tiles; none of a short recording.
    """

    whole: str
    span: float
    tiles: list[str]


def pooled_frames(front_end: FeatureConfig) -> int:
    """Frames of a front end that become one column."""
    return max(1, round(1 / (COLUMNS_PER_SECOND * front_end.frame_seconds)))


def mel_pieces(blocks: Iterable[np.ndarray], front_end: FeatureConfig) -> Iterator[np.ndarray]:
    """Yields the linear mel-spectrogram of consecutive blocks of samples `[n]` in pieces `[F, T]`, a tile each.

    The frames are those of the whole recording, as each piece is computed with the samples around it.
    """
    hop, n_samples = front_end.hop, TILE * pooled_frames(front_end) * front_end.hop
    lead = -(-front_end.n_fft // (2 * hop)) * hop
    kept, before = np.empty(0, dtype=np.float32), 0  # the next piece begins `before` samples after the first one kept
    for block in blocks:
        kept = np.concatenate([kept, block])
        while len(kept) >= before + n_samples + lead:
            mel = front_end.mel(torch.from_numpy(kept[: before + n_samples + lead])).numpy()
            yield mel[:, before // hop : (before + n_samples) // hop]
            kept, before = kept[before + n_samples - lead :], lead
    if len(kept) > before:
        yield front_end.mel(torch.from_numpy(kept)).numpy()[:, before // hop :]


def draw(
    blocks: Iterable[np.ndarray], front_end: FeatureConfig, *, loudest: float, seconds: float, tiles: Path
) -> Pictures:
    """Draws a recording, given as blocks of samples `[n]`.

    Args:
        blocks: the recording.
        front_end: the detector's front end.
        loudest: amplitude of the mel-spectrogram that has the brightest colour.
        seconds: length of the recording.
        tiles: the name of a tile is this one with a number and `.png` added.
    """
    pool = pooled_frames(front_end)
    n_columns = front_end.n_frames(round(seconds * front_end.sample_rate)) // pool + 1
    step = -(-n_columns // WHOLE)
    total = np.zeros((-(-n_columns // step), front_end.n_mels))
    counts = np.zeros((len(total), 1))
    names: list[str] = []
    done = 0
    for mel in mel_pieces(blocks, front_end):
        columns = _levels(_pooled(mel, pool), loudest)
        into = np.minimum((done + np.arange(columns.shape[1])) // step, len(total) - 1)
        np.add.at(total, into, columns.T)
        np.add.at(counts, into, 1)
        done += columns.shape[1]
        if step > 1:
            path = tiles.with_name(f"{tiles.name}.{len(names):04d}.png")
            names.append(path.name)
            with replacing(path) as temporary:
                temporary.write_bytes(_png(columns))
    heard = counts[:, 0] > 0
    whole = (total[heard] / counts[heard]).round().astype(np.uint8).T
    span = whole.shape[1] * step * pool * front_end.frame_seconds
    return Pictures("data:image/png;base64," + base64.b64encode(_png(whole)).decode(), span, names)


def _pooled(mel: np.ndarray, pool: int) -> np.ndarray:
    """The largest of every `pool` frames: `[F, T]` -> `[F, ceil(T / pool)]`."""
    padded = np.pad(mel, ((0, 0), (0, -mel.shape[1] % pool)))
    return padded.reshape(len(mel), -1, pool).max(axis=2)


def _levels(mel: np.ndarray, loudest: float) -> np.ndarray:
    """Indices of the palette."""
    decibels = 20 * np.log10(np.maximum(mel, 1e-12) / max(loudest, 1e-12))
    return np.clip((decibels + RANGE_DB) / STEP_DB, 0, _N_LEVELS - 1).round().astype(np.uint8)


def _png(levels: np.ndarray) -> bytes:
    """A picture of indices `[F, T]`, whose lowest band is at the bottom."""
    image = Image.fromarray(np.ascontiguousarray(levels[::-1]), mode="P")
    image.putpalette(_PALETTE.tobytes())
    content = io.BytesIO()
    image.save(content, format="PNG", optimize=True)
    return content.getvalue()
