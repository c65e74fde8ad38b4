"""The files behind the page: pictures of long recordings, what is kept out of the page, and the server."""

from __future__ import annotations

import base64
import io
import re
import struct
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
import soundfile
import torch
from layout import PACKAGE
from PIL import Image

from task_aware import view
from task_aware.base.errors import DataError
from task_aware.models.features import FeatureConfig
from task_aware.viewing import page, pictures
from task_aware.viewing.page import write_page
from task_aware.viewing.recordings import read_recording, read_summary
from task_aware.viewing.seek_table import add_seek_table
from task_aware.viewing.serving import make_server

from .conftest import EVENTS, RATE, add_recording, tone


def test_pieces_join_to_the_spectrogram_of_the_whole(monkeypatch):
    monkeypatch.setattr(pictures, "TILE", 20)
    samples = np.random.default_rng(0).standard_normal(5 * RATE + 77).astype(np.float32)
    front_end = FeatureConfig()
    pieces = list(pictures.mel_pieces(np.array_split(samples, 7), front_end))
    assert len(pieces) > 5
    whole = front_end.mel(torch.from_numpy(samples)).numpy()
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, rtol=1e-4, atol=1e-5)


def test_pictures_show_tones_where_they_are(tmp_path):
    """In the picture of the whole and in the tiles, from below, at their time."""
    samples = np.concatenate([tone(400, 60.0), tone(4000, 60.0)])
    front_end = FeatureConfig()
    blocks = np.array_split(samples, 9)
    loudest = max(float(mel.max()) for mel in pictures.mel_pieces(blocks, front_end))
    drawn = pictures.draw(blocks, front_end, loudest=loudest, seconds=120.0, tiles=tmp_path / "x")
    whole = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.whole.partition(",")[2]))))
    tiles = [np.asarray(Image.open(tmp_path / name)) for name in drawn.tiles]
    assert whole.shape[1] <= 2048 and all(tile.shape == (128, 1024) for tile in tiles[:-1])
    assert drawn.span == pytest.approx(120.0, abs=0.1)
    joined = np.concatenate(tiles, axis=1)
    for image in (whole, joined):
        half = image.shape[1] // 2
        rows = [np.bincount(part.argmax(axis=0)).argmax() for part in (image[:, : half - 5], image[:, half + 5 :])]
        assert rows[0] > 90 and rows[1] < 50  # from the top
        assert image.max() == 40  # the loudest place has the brightest colour


def test_a_long_recording_is_in_no_part_read_as_a_whole(tmp_path, monkeypatch):
    """The page holds neither its sound nor its tiles, and the waveform has a bounded number of points."""
    monkeypatch.setattr(page, "INLINE_BYTES", 100_000)
    place = add_recording(tmp_path, "long.wav", "long", seconds=700.0)
    size = write_page(tmp_path).stat().st_size
    short = tmp_path / "short"
    add_recording(short, "short.wav", "short", seconds=1.0)
    assert abs(size - write_page(short).stat().st_size) < 400_000
    recording = read_recording(place.data)
    assert len(base64.b64decode(recording["peaks"])) <= 60_001
    assert len(recording["tracks"][0]["tiles"]) == 22 and place.data.stat().st_size < 1_000_000
    assert all(len(track["picture"]) < 300_000 for track in recording["tracks"])


def test_every_fourth_frame_is_in_the_seek_table_and_the_sound_stays(tmp_path):
    """Chromium cannot jump everywhere in a file without a table."""
    path = tmp_path / "a.flac"
    samples = np.random.default_rng(0).standard_normal(130 * 4096 + 1) * 0.1  # numbers of frames of one and two bytes
    soundfile.write(path, samples, RATE, subtype="PCM_24")
    before, content = soundfile.read(path)[0], path.read_bytes()
    add_seek_table(path)
    after = path.read_bytes()
    length = int.from_bytes(after[43:46], "big")
    assert after[42] == 3 and after[:42] + after[46 + length :] == content
    points = [struct.unpack(">QQH", after[start : start + 18]) for start in range(46, 46 + length, 18)]
    assert points == [(4 * 4096 * index, points[index][1], 4096) for index in range(33)]  # of 131 frames
    first = after.index(b"\xff\xf8", 46 + length)
    for index, (_, offset, _) in enumerate(points):
        assert after[first + offset :].startswith(after[first : first + 4] + chr(4 * index).encode())
    np.testing.assert_array_equal(soundfile.read(path)[0], before)
    add_seek_table(path)
    assert path.read_bytes() == after


def test_levels_are_relative_to_the_recording(tmp_path):
    place = add_recording(tmp_path, "a.wav", "a")
    assert [track["level"] for track in read_recording(place.data)["tracks"]] == pytest.approx([0, -3, -3], abs=0.1)
    assert read_summary(place.data)["labels"] == ["Cat", "Dog"]


def test_no_text_of_the_data_ends_their_script(tmp_path):
    add_recording(tmp_path, "</script>{{PLAYER}}<!-- \u2028.wav", "a")
    text = write_page(tmp_path).read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data and "\\u003c/script>{{PLAYER}}\\u003c!--" in data[1] and "<" not in data[1]


def test_what_cannot_be_shown_is_named(tmp_path):
    with pytest.raises(DataError, match="holds nothing that a page could show; run infer with --html"):
        view.main([str(tmp_path)])
    (tmp_path / "view").mkdir()
    (tmp_path / "view/a.js").write_text("//[]\nreceive({});\n")
    with pytest.raises(DataError, match="does not hold a recording to show; remove it"):
        view.main([str(tmp_path)])
    (tmp_path / "view/a.js").write_bytes(b"//\xff")
    with pytest.raises(DataError, match="cannot be read"):
        view.main([str(tmp_path)])


def test_true_events_become_a_row(tmp_path, capsys):
    add_recording(tmp_path, "a.wav", "a")
    table = tmp_path / "true.tsv"
    table.write_text("filename\tonset\toffset\tevent_label\na.wav\t0.25\t1.0\tViolin\nb.wav\t0\t1\tDog\n")
    view.main([str(tmp_path), f"--events={table}"])
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert '"references": {"a.wav": [[0.25, 1.0, "Violin"]]}' in text
    assert str(tmp_path / "index.html") in capsys.readouterr().out


@pytest.fixture
def address(tmp_path):
    add_recording(tmp_path, "a.wav", "a b")
    write_page(tmp_path)
    (tmp_path / "events.tsv").write_text("secret")
    server = make_server(tmp_path, 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_server_answers_with_parts(address, tmp_path):
    content = (tmp_path / "audio/a b.mixture.flac").read_bytes()
    url = f"{address}/audio/a%20b.mixture.flac"
    assert urllib.request.urlopen(url).read() == content
    for wanted, expected in (("bytes=100-199", content[100:200]), ("bytes=1000-", content[1000:])):
        answer = urllib.request.urlopen(urllib.request.Request(url, headers={"Range": wanted}))
        assert answer.status == 206 and answer.read() == expected
    with pytest.raises(urllib.error.HTTPError, match="416"):
        urllib.request.urlopen(urllib.request.Request(url, headers={"Range": f"bytes={len(content)}-"}))


@pytest.mark.parametrize("path", ["/events.tsv", "/view/../events.tsv", "/view/", "/audio", "/absent", "/%00"])
def test_the_server_gives_only_what_the_page_consists_of(address, path):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(address + path)
    assert b"<!doctype html>" in urllib.request.urlopen(address).read()


def test_events_have_their_rows(tmp_path):
    rows = read_recording(add_recording(tmp_path, "a.wav", "a").data)["rows"]
    assert rows["with separation"] == [[event.onset, event.offset, event.label] for event in EVENTS]


def test_what_the_page_is_made_of_goes_into_the_wheel():
    text = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    patterns = re.findall(r'"([^"]+)"', re.search(r"^task_aware = (\[.*\])$", text, re.MULTILINE)[1])
    packed = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    needed = {path for path in (PACKAGE / "assets/view").rglob("*") if path.is_file()}
    assert len(needed) >= 9 and needed <= packed
    assert "BSD 3-Clause" in (PACKAGE / "assets/view/wavesurfer/LICENSE").read_text(encoding="utf-8")
