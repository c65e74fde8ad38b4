"""Opens recordings, and finds what libsndfile does not tell: files cut off, of unknown length, or of other formats."""

from __future__ import annotations

import mmap
import os
import re
import shlex
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import soundfile

from task_aware.base.errors import RecordingError
from task_aware.data.mp3 import missing_header
from task_aware.data.splicing import Spliced

#: A number of frames from here on means that the file does not state it.
UNKNOWN_FRAMES = 1 << 62

#: Below this sample rate, in Hz, a header is wrong, and a resampled recording would have no end.
LOWEST_RATE = 100

#: Bytes after the samples of a WAV file, which are no chunk, from which on its length counts as wrong.
_STRAY = 1 << 12

_NAME = re.compile(rb"[ -~]{4}")  # of a chunk

# Beginnings of files that libsndfile does not read, what they are, and how FFmpeg converts them.
_TO_FLAC = "ffmpeg -i {} {stem}.flac"
_FOREIGN: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"BW64"), "a Broadcast Wave file (BW64)", "ffmpeg -i {} -c copy -rf64 auto {stem}-rf64.wav"),
    (re.compile(rb"....ftyp", re.DOTALL), "an MPEG-4 file (such as m4a)", _TO_FLAC),
    (re.compile(rb"\x30\x26\xb2\x75"), "a Windows Media file", _TO_FLAC),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "a Matroska or WebM file", _TO_FLAC),
    (re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"), "an AAC stream", _TO_FLAC),
    (re.compile(rb"#!AMR"), "an AMR file", _TO_FLAC),
    (re.compile(rb"OggS.{24}\x7fFLAC", re.DOTALL), "FLAC in Ogg", _TO_FLAC),
    (
        re.compile(rb"fLaC.{16}[" + re.escape(bytes(range(1, 256, 2))) + rb"][\xf0-\xff]", re.DOTALL),
        "FLAC of 32 bits",
        "ffmpeg -i {} -c:a pcm_s32le {stem}.wav",
    ),
    (re.compile(rb"wvpk"), "a WavPack file", _TO_FLAC),
    (re.compile(rb"MAC "), "a Monkey's Audio file", _TO_FLAC),
    (re.compile(rb"TTA1"), "a True Audio file", _TO_FLAC),
    (re.compile(rb"DSD |FRM8"), "a DSD file", _TO_FLAC),
)


class Sound(soundfile.SoundFile):
    """A recording, read once from front to back: soundfile seeks after each read, which some formats do badly.

    `expected` is the number of its frames; None if only reading tells. `body` is closed with it.
    """

    expected: int | None = None
    body: BinaryIO | None = None

    def seekable(self) -> bool:
        return False

    @property
    def is_ambisonic(self) -> bool:
        """Whether a WAV header says that the channels are W, X, Y, ...; only libsndfile's log tells."""
        return "(Ambisonic B)" in self.extra_info

    def close(self) -> None:
        super().close()
        if self.body is not None:
            self.body.close()


def open_sound(path: Path) -> Sound:
    """Opens a recording of any format that libsndfile decodes.

    Raises RecordingError if it is missing, not a regular file, of an unknown format, or known to be cut off.
    """
    # opening a named pipe or a device would wait for ever
    if not os.path.isfile(path):
        raise RecordingError(f"{path} is not a file; check the folder and the name.")
    head = b""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            head = file.read(1024)
            replaced = _check(path, file, head)
            sound = Sound(replaced or path)
        except (OSError, RuntimeError) as error:
            raise RecordingError(undecodable(path, error, head)) from error
        if replaced is not None:
            stack.pop_all()
            sound.body = file
    if sound.samplerate < LOWEST_RATE:
        raise RecordingError(f"{path} states a sample rate of {sound.samplerate} Hz; correct its header, or remove it.")
    sound.expected = sound.frames if sound.frames < UNKNOWN_FRAMES else None
    stated = re.match(rb"NIST_1A.*sample_count -i (\d+)", head, re.DOTALL)
    if stated and int(stated[1]) > sound.frames:
        raise RecordingError(_cut_off(path, sound.frames, int(stated[1]), "samples"))
    return sound


def undecodable(path: Path, error: Exception, head: bytes = b"") -> str:
    """Says why libsndfile refuses a file and, where its first bytes tell, what it is."""
    for beginning, kind, command in _FOREIGN:
        if beginning.match(head):
            command = command.format(shlex.quote(path.name), stem=shlex.quote(path.stem))
            return f"{path} is {kind}, which libsndfile does not read; convert it, for instance with `{command}`."
    reason = re.sub(r"^Error opening .*?: (?=\S+ [a-z])", "", str(error)).rstrip(".")
    if head.startswith((b"RIFF", b"RIFX", b"RF64", b"caff")):
        return f"{path} cannot be decoded ({reason}); replace it, or convert it with FFmpeg if that can play it."
    return f"{path} cannot be decoded ({reason}); replace or remove it."


def _cut_off(path: Path, found: int, stated: int, unit: str = "bytes") -> str:
    return f"{path} is truncated: it holds {found} of {stated} {unit}; copy it again."


def _check(path: Path, file: BinaryIO, head: bytes) -> Spliced | None:
    """Raises RecordingError if the file is cut off; returns it with another beginning if it lacks its length."""
    size = path.stat().st_size
    if head.startswith((b"RIFF", b"RIFX", b"RF64")):
        return _check_wav(path, file, head, size)
    if head.startswith((b"FORM", b"riff", b".snd")):
        data = _find_data(file, head, size)
        if data and data.start + data.stated > size and not data.unknown:
            raise RecordingError(_cut_off(path, size - data.start, data.stated))
    elif head.startswith(b"OggS"):
        _check_ogg(path, file, size)
    elif head.startswith((b"ID3", b"\xff")):
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            missing = missing_header(path, content)
        if missing is not None:
            file.seek(missing[1])
            return Spliced(missing[0], file, size - missing[1])
    return None


class _Data(NamedTuple):
    """Where the samples begin, how many bytes the header states, and whether it says that it does not know."""

    start: int
    stated: int
    unknown: bool


def _chunks(file: BinaryIO, at: int, size: int, order: str, wide: bool = False) -> Iterator[tuple[bytes, int, int]]:
    """Names, positions and lengths of the chunks from a position on, up to one that is none by its name.

    `wide` ones have 16-byte names (W64).
    """
    n_header = 24 if wide else 8
    while at + n_header <= size:
        file.seek(at)
        header = file.read(n_header)
        length = struct.unpack(f"{order}{'q' if wide else 'I'}", header[16 if wide else 4 :])[0]
        length = max(0, length - n_header) if wide else length
        yield header[:4], at + n_header, length
        if not _NAME.fullmatch(header[:4]):
            return
        align = 8 if wide else 2
        at += n_header + -(-length // align) * align


def is_unknown(length: int) -> bool:
    """Whether a chunk's length is what programs leave that do not know it: 0, -1 or the largest, less a header."""
    return (
        length == 0
        or 0x7FFF0000 <= length <= 0x80000000
        or 0xFFFF0000 <= length <= 0xFFFFFFFF
        or length >= UNKNOWN_FRAMES
    )


def _find_data(file: BinaryIO, head: bytes, size: int) -> _Data | None:
    """Finds the samples of a WAV (RIFF, RIFX, RF64), W64, AIFF or AU file; None if there are none."""
    if head.startswith(b".snd"):
        start, stated = struct.unpack(">II", head[4:12].ljust(8, b"\0"))
        return _Data(start, stated, stated == 0xFFFFFFFF)
    wide = head.startswith(b"riff")
    big = head.startswith((b"FORM", b"RIFX"))
    real = None
    for name, start, length in _chunks(file, 40 if wide else 12, size, ">" if big else "<", wide):
        if name == b"ds64":
            file.seek(start + 8)
            real = int.from_bytes(file.read(8), "little")
        elif name in (b"data", b"SSND", b"BODY"):
            if length == 0xFFFFFFFF and real is not None:
                return _Data(start, real, real == 0 or real >= UNKNOWN_FRAMES)
            return _Data(start, length, is_unknown(length))
    return None


def _check_wav(path: Path, file: BinaryIO, head: bytes, size: int) -> Spliced | None:
    data = _find_data(file, head, size)
    if data is None:
        return None
    end = data.start + data.stated
    if end > size and not data.unknown:
        raise RecordingError(_cut_off(path, size - data.start, data.stated))
    end += end % 2
    following = next(_chunks(file, end, size, ">" if head.startswith(b"RIFX") else "<"), None)
    stray = following is not None and (following[2] > size - following[1] or not _NAME.fullmatch(following[0]))
    # libsndfile reads on to the end of the file itself if the stated length lies beyond it
    if data.unknown and (stray or data.stated >= UNKNOWN_FRAMES):
        for name, start, length in _chunks(file, 12, data.start, "<"):
            if name == b"fmt " and not head.startswith(b"RIFX"):
                file.seek(start)
                header = wav_header(file.read(length), size - data.start)
                file.seek(data.start)
                return Spliced(header, file, size - data.start)
    elif stray and size - end > max(_STRAY, data.stated // 100):
        raise RecordingError(
            f"{path} holds {size - data.start} bytes, but its header states {data.stated}, and only those would be "
            f"read; rewrite it, for instance with `ffmpeg -ignore_length 1 -i {shlex.quote(path.name)} NEW.wav`."
        )
    return None


def wav_header(form: bytes, n_bytes: int) -> bytes:
    """What precedes `n_bytes` of samples in RF64, whose lengths have 64 bits; `form` is the content of `fmt `."""
    header = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<IQQQI", 28, n_bytes + 76 + len(form), n_bytes, 0, 0)
    return header + b"fmt " + struct.pack("<I", len(form)) + form + b"data\xff\xff\xff\xff"


def _check_ogg(path: Path, file: BinaryIO, size: int) -> None:
    """Raises RecordingError if the last page is missing, or if another stream follows."""
    at, last, begun = 0, False, False
    while at < size:
        file.seek(at)
        page = file.read(27 + 255)
        if len(page) < 27 or page[:4] != b"OggS":
            break
        flags, n_segments = page[5], page[26]
        if flags & 2 and begun:
            raise RecordingError(
                f"{path} holds several streams one after another, of which only the first would be read; join them, "
                f"for instance with `ffmpeg -i {shlex.quote(path.name)} {shlex.quote(path.stem)}.flac`."
            )
        begun = begun or not flags & 2
        last = bool(flags & 4)
        at += 27 + n_segments + sum(page[27 : 27 + n_segments])
    if not last or at > size:
        raise RecordingError(
            f"{path} is truncated: it ends before the last page of its stream; copy it again, or rewrite what is there "
            f"with `ffmpeg -i {shlex.quote(path.name)} -c copy NEW{path.suffix}`."
        )
