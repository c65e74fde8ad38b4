"""`infer --html` and `--export`: all that the page and other programs need, made again where it is missing."""

from __future__ import annotations

from data.recordings import burst, write

from task_aware import infer
from task_aware.base.tables import read_rows
from task_aware.viewing.recordings import read_recording


def test_a_page_and_labels_for_other_programs(small_separator, tmp_path):
    """Sound of the page is not taken for recordings, and what is missing of it is made again."""
    checkpoint = tmp_path / "separator.safetensors"
    small_separator.save(checkpoint)
    write(tmp_path / "a.wav", burst(3.0, lead=0.5, tail=0.5))
    command = [str(checkpoint), str(tmp_path), f"--out={tmp_path}", "--html", "--export=audacity", "--skip-existing"]
    infer.main(command)
    assert [path.name for path in (tmp_path / "view").iterdir()] == ["a.js"] and (
        tmp_path / "index.html"
    ).stat().st_size > 100_000
    assert {"a.mixture.flac", "a.source_1.flac"} <= {path.name for path in (tmp_path / "audio").iterdir()}
    labels = [tuple(line.split("\t")) for line in (tmp_path / "labels/a.txt").read_text().splitlines()]
    assert labels and labels == [tuple(row) for _, row in read_rows(tmp_path / "events/a.tsv")][1:]
    data = read_recording(tmp_path / "view/a.js")
    assert list(data["rows"]) == ["detector alone", "with separation"]
    assert [track["name"] for track in data["tracks"]] == ["", "source_1", "source_2", "source_3"]
    assert data["rows"]["with separation"] == [[float(a), float(b), c] for a, b, c in labels]
    (tmp_path / "view/a.js").unlink()
    infer.main(command)
    assert read_recording(tmp_path / "view/a.js") == data
    assert {row[0] for _, row in read_rows(tmp_path / "events.tsv")} == {"filename", "a.wav"}
