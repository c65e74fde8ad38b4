"""The length of mp3 files, which libsndfile guesses from the first frames if the file does not state it."""

from __future__ import annotations

import mmap
from typing import NamedTuple

from task_aware.base.errors import RecordingError

# kbit/s by index, of layer III in MPEG 1 and in MPEG 2 and 2.5
_BIT_RATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_SAMPLE_RATES = (44100, 48000, 32000)

#: Bytes that are searched for the next frame where none is.
_SEARCHED = 1 << 16


class Frame(NamedTuple):
    """A frame: its length in bytes, its side information's, and what all frames of a stream have in common."""

    n_bytes: int
    n_side: int
    kind: int


def frame_at(data: bytes | mmap.mmap, at: int) -> Frame | None:
    """Reads the header of the layer III frame at a position; None if there is none."""
    header = int.from_bytes(data[at : at + 4], "big")
    version, bit_rate, rate = header >> 19 & 3, header >> 12 & 15, header >> 10 & 3
    if len(data) < at + 4 or header >> 21 != 0x7FF or header >> 17 & 3 != 1:
        return None
    if version == 1 or bit_rate in (0, 15) or rate == 3:
        return None
    old = version == 3  # MPEG 1
    sample_rate = _SAMPLE_RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    n_bytes = (144000 if old else 72000) * _BIT_RATES[not old][bit_rate] // sample_rate + (header >> 9 & 1)
    mono = header >> 6 & 3 == 3
    n_side = (17 if mono else 32) if old else (9 if mono else 17)
    return Frame(n_bytes, n_side, header & 0xFFFE0C00)


def _next_frame(data: mmap.mmap, at: int, kind: int | None = None) -> int | None:
    """The position of the next frame that another one follows, from `at` on; None if there is none nearby."""
    for start in range(at, min(at + _SEARCHED, len(data) - 4)):
        if data[start] == 0xFF and (frame := frame_at(data, start)) and kind in (None, frame.kind):
            after = start + frame.n_bytes
            following = frame_at(data, after)
            if after >= len(data) or (following and following.kind == frame.kind):
                return start
    return None


def first_frame(data: mmap.mmap) -> int | None:
    """The position of the first frame after ID3v2 tags; None if this is not an mp3 file."""
    at = 0
    while data[at : at + 3] == b"ID3":
        size = 0
        for byte in data[at + 6 : at + 10]:
            size = size << 7 | byte & 0x7F
        at += 10 + size
    if at and data[at : at + 4] == b"fLaC":
        return None
    return _next_frame(data, at) if at or frame_at(data, 0) else None


def stated_length(data: mmap.mmap, at: int) -> tuple[int, int] | None:
    """Number of frames and of bytes that the first frame states (a Xing, Info or VBRI header); None if it does not."""
    frame = frame_at(data, at)
    assert frame is not None
    tag = at + 4 + frame.n_side
    if data[tag : tag + 4] in (b"Xing", b"Info") and int.from_bytes(data[tag + 4 : tag + 8], "big") & 3 == 3:
        return int.from_bytes(data[tag + 8 : tag + 12], "big"), int.from_bytes(data[tag + 12 : tag + 16], "big")
    if data[at + 36 : at + 40] == b"VBRI":
        return int.from_bytes(data[at + 50 : at + 54], "big"), int.from_bytes(data[at + 46 : at + 50], "big")
    return None


def count_frames(data: mmap.mmap, at: int, kind: int) -> tuple[int, int]:
    """Number of frames of a kind from `at` on, and where they end (past the file if the last one is cut off)."""
    count = 0
    while True:
        frame = frame_at(data, at)
        if frame is None or frame.kind != kind:
            following = _next_frame(data, at, kind)
            if following is None:
                return count, at
            at = following
        else:
            count += 1
            at += frame.n_bytes


def missing_header(path: object, data: mmap.mmap) -> tuple[bytes, int] | None:
    """A first frame that states the length, for a file that lacks it, and where the frames that it counts begin.

    None if the file states its own length, or is no mp3 file. Raises RecordingError if the file is cut off.
    """
    start = first_frame(data)
    if start is None:
        return None
    frame = frame_at(data, start)
    assert frame is not None
    if start + frame.n_bytes > len(data):
        raise RecordingError(f"{path} is truncated: it ends within its first frame; copy it again.")
    stated = stated_length(data, start)
    if stated is not None:
        end = start + stated[1]
        if end > len(data):
            raise RecordingError(
                f"{path} is truncated: it holds {len(data) - start} of {stated[1]} bytes; copy it again."
            )
        if frame_at(data, end) is None or _next_frame(data, end) != end:
            return None
        first = _next_frame(data, start + frame.n_bytes)  # further frames follow those counted
        if first is None:
            return None
        start = first
    count, end = count_frames(data, start, frame.kind)
    if end > len(data):
        raise RecordingError(
            f"{path} is truncated: its last frame is cut off; copy it again, or rewrite what is there with "
            f"`ffmpeg -i {path} -c copy NEW.mp3`."
        )
    # the header of the first frame, at 64 or 128 kbit/s, without checksum and padding
    header = int.from_bytes(data[start : start + 4], "big") & ~0xF200 | 0x10000
    old = header >> 19 & 3 == 3
    header |= (9 if old else 8) << 12
    frame = frame_at(header.to_bytes(4, "big"), 0)
    assert frame is not None
    content = bytes(frame.n_side) + b"Xing" + b"\0\0\0\3"
    content += count.to_bytes(4, "big") + (end - start + frame.n_bytes).to_bytes(4, "big")
    return (header.to_bytes(4, "big") + content).ljust(frame.n_bytes, b"\0"), start
