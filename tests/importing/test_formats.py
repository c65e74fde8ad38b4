"""Each label format, in fixtures that its own library made: every label arrives, once, at its time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from task_aware.base.errors import DataError
from task_aware.data.labels import Event
from task_aware.importing.collection import read_collection
from task_aware.importing.items import Problems
from task_aware.importing.options import Columns
from task_aware.importing.tables import read_table

from .sounds import barks, write

EVENTS = [Event(0.5, 1.25, "dog"), Event(2.0, 3.5, "two / words")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write(tmp_path / "audio/a.wav", barks(0.5, 2.0))
    return tmp_path


def read(source: Path, table: Path | None = None, **columns):
    """The events of each recording, and what was wrong."""
    problems = Problems()
    items = read_collection(source, table, Columns(**columns), problems)
    return {item.name: list(item.events or item.labels) for item in items}, problems.found


def test_dcase_txt_and_desed_tsv_as_dcase_util_writes_them(source):
    containers = pytest.importorskip("dcase_util").containers
    metadata = [
        {"filename": "a.wav", "onset": event.onset, "offset": event.offset, "event_label": event.label}
        for event in EVENTS
    ]
    path = source / "audio/a.txt"
    containers.MetaDataContainer(metadata).save(filename=str(path))
    assert read(source) == ({"audio/a.wav": EVENTS}, [])
    with_scene = [{**row, "scene_label": "home"} for row in metadata]
    containers.MetaDataContainer(with_scene).save(filename=str(path))
    assert read(source) == ({"audio/a.wav": EVENTS}, [])
    path.unlink()
    table = source / "strong.tsv"
    containers.MetaDataContainer(metadata).save(filename=str(source / "strong.csv"), delimiter="\t", csv_header=True)
    (source / "strong.csv").rename(table)
    assert "event_label" in table.read_text().splitlines()[0]
    assert read(source) == ({"audio/a.wav": EVENTS}, [])
    header = table.read_text().splitlines()[0].split("\t")
    for onset, offset, label in (("1,5", "2,5", "dog"), ("dog", "1", "2")):
        bad = {"filename": "a.wav", "onset": onset, "offset": offset, "event_label": label}
        table.write_text(table.read_text() + "\t".join(bad[name] for name in header) + "\n")
    found, problems = read(source)
    assert found == {"audio/a.wav": EVENTS} and [line for _, line, _ in problems] == ["4", "5"]


def test_audacity_labels_with_frequencies_and_without(source):
    crowsetta = pytest.importorskip("crowsetta", reason="crowsetta is not installed")
    path = source / "audio/a.txt"
    columns = zip(*[(event.onset, event.offset, event.label) for event in EVENTS], strict=True)
    start_times, end_times, labels = (np.array(column) for column in columns)
    crowsetta.formats.seq.AudSeq(start_times=start_times, end_times=end_times, labels=labels, annot_path=path).to_file(
        path
    )
    assert read(source) == ({"audio/a.wav": EVENTS}, [])
    # as Audacity writes labels of a spectral selection; the last one has no frequencies, and none may vanish
    path.write_text("0.5\t1.25\tdog\n\\\t100.0\t2000.0\n2.0\t3.5\ttwo / words\n4.0\t4.0\tpoint\n")
    found, problems = read(source)
    assert found == {"audio/a.wav": EVENTS} and [line for _, line, _ in problems] == ["4"]


def test_raven_selections_count_once_for_all_views(source):
    crowsetta = pytest.importorskip("crowsetta", reason="crowsetta is not installed")
    pandas = pytest.importorskip("pandas")
    path = source / "audio/a.Table.1.selections.txt"
    frame = pandas.DataFrame(
        [
            (k, "Spectrogram 1", 1, event.onset, event.offset, 100.0, 900.0, event.label)
            for k, event in enumerate(EVENTS, 1)
        ],
        columns=[
            "Selection",
            "View",
            "Channel",
            "begin_time_s",
            "end_time_s",
            "low_freq_hz",
            "high_freq_hz",
            "annotation",
        ],
    )
    crowsetta.formats.bbox.Raven(frame, path, "Species", source / "audio/a.wav").to_file(path)
    assert read(source) == ({"audio/a.wav": EVENTS}, [])
    lines = path.read_text().splitlines()
    views = [line.replace("Spectrogram 1", "Waveform 1") for line in lines[1:]]
    path.write_text("\n".join([lines[0], *views, *lines[1:]]))
    assert read(source) == ({"audio/a.wav": EVENTS}, [])
    path.write_text("\n".join(line.rpartition("\t")[0] for line in lines))
    with pytest.raises(DataError, match=r"no column of labels; it has Selection, .* --label-column"):
        read(source)


def test_raven_tables_of_several_recordings_count_from_the_beginning_of_each(source):
    """With whole numbers of Hz and a path, as BirdNET writes them, which crowsetta refuses."""
    (source / "audio/b.wav").write_bytes((source / "audio/a.wav").read_bytes())
    (source / "other").mkdir()
    (source / "other/a.wav").write_bytes((source / "audio/a.wav").read_bytes())
    header = "Selection View Channel Begin_Time_(s) End_Time_(s) Low_Freq_(Hz) High_Freq_(Hz) Common_Name Confidence "
    header = (header + "Begin_Path File_Offset_(s)").replace(" ", "\t").replace("_", " ")
    rows = [
        "1\tSpectrogram 1\t1\t0.5\t1.25\t0\t15000\tdog\t0.9\t/home/me/audio/a.wav\t0.5",
        "2\tSpectrogram 1\t1\t12.0\t13.5\t0\t15000\ttwo / words\t0.9\tC:\\me\\audio\\b.wav\t2.0",
    ]
    (source / "audio/a.BirdNET.selection.table.txt").write_text("\n".join([header, *rows]) + "\n")
    assert read(source) == ({"audio/a.wav": EVENTS[:1], "audio/b.wav": EVENTS[1:]}, [])


def test_textgrid_of_all_tiers_without_empty_intervals(source):
    textgrids = pytest.importorskip("textgrids", reason="praat-textgrids is not installed")
    pytest.importorskip("crowsetta", reason="crowsetta is not installed")
    grid = textgrids.TextGrid()
    grid.xmin, grid.xmax = 0.0, 5.0
    for name, event in zip(("one", "two"), EVENTS, strict=True):
        spans = [(0.0, event.onset, ""), (event.onset, event.offset, event.label), (event.offset, 5.0, "")]
        grid[name] = textgrids.Tier([textgrids.Interval(text, xmin, xmax) for xmin, xmax, text in spans])
    (source / "audio/a.TextGrid").write_text(str(grid), encoding="utf-8")
    assert read(source) == ({"audio/a.wav": EVENTS}, [])


def test_elan_times_that_are_missing_or_shifted(source):
    elan = pytest.importorskip("pympi", reason="pympi-ling is not installed").Elan
    eaf = elan.Eaf(author="test")
    eaf.add_linked_file("a.wav", mimetype="audio/x-wav")
    eaf.add_tier("sounds")
    for event in EVENTS:
        eaf.add_annotation("sounds", round(1000 * event.onset), round(1000 * event.offset), event.label)
    path = source / "audio/a.eaf"
    eaf.to_file(str(path))
    assert read(source) == ({"audio/a.wav": EVENTS}, [])
    # three parts of one stretch, whose inner borders ELAN leaves without times
    text = path.read_text(encoding="utf-8")
    assert 'TIME_VALUE="1250"' in text and 'TIME_VALUE="2000"' in text
    path.write_text(text.replace(' TIME_VALUE="1250"', "").replace(' TIME_VALUE="2000"', ""), encoding="utf-8")
    found, _ = read(source)
    assert found["audio/a.wav"] == [Event(0.5, 1.5, "dog"), Event(2.5, 3.5, "two / words")]
    shifted = text.replace('MEDIA_URL="a.wav"', 'MEDIA_URL="a.wav" TIME_ORIGIN="1000"')
    assert shifted != text
    path.write_text(shifted, encoding="utf-8")
    found, _ = read(source)
    assert found["audio/a.wav"] == [Event(1.5, 2.25, "dog"), Event(3.0, 4.5, "two / words")]


def test_jams_as_scaper_and_taggers_write_it(source):
    jams = pytest.importorskip("jams", reason="jams is not installed")
    for namespace in ("scaper", "segment_open"):
        annotation = jams.Annotation(namespace=namespace, duration=5.0)
        for event in EVENTS:
            value = event.label if namespace != "scaper" else {"label": event.label, "role": "foreground"}
            annotation.append(time=event.onset, duration=event.offset - event.onset, value=value, confidence=1.0)
        if namespace == "scaper":
            annotation.append(time=0.0, duration=5.0, value={"label": "park", "role": "background"}, confidence=1.0)
        jam = jams.JAMS(annotations=[annotation])
        jam.file_metadata.duration = 5.0
        jam.save(str(source / "audio/a.jams"), strict=False)
        assert read(source) == ({"audio/a.wav": EVENTS}, [])


def test_scaper_generates_txt_and_jams(source, tmp_path_factory):
    scaper = pytest.importorskip("scaper", reason="scaper is not installed, or lacks SoX")
    folder = tmp_path_factory.mktemp("scaper")
    for label in ("dog", "cat"):
        write(folder / "foreground" / label / "x.wav", barks(0.0, seconds=0.5))
    write(folder / "background/park/y.wav", barks(noise=0.05))
    scape = scaper.Scaper(5.0, str(folder / "foreground"), str(folder / "background"), random_state=0)
    scape.add_background(("const", "park"), ("choose", []), ("const", 0))
    for label, time in (("dog", 1.0), ("cat", 2.5)):
        scape.add_event(("const", label), ("choose", []), ("const", 0), ("const", time), ("const", 0.5),
                        ("const", 6), None, None)  # fmt: skip
    txt, jam = source / "audio/a.txt", source / "audio/a.jams"
    scape.generate(None, str(jam), txt_path=str(txt), no_audio=True)
    expected = {"audio/a.wav": [Event(1.0, 1.5, "dog"), Event(2.5, 3.0, "cat")]}
    moved = jam.rename(source / "kept.jams")
    assert read(source) == (expected, [])
    txt.unlink()
    moved.rename(jam)
    assert read(source) == (expected, [])


def label_studio_task():
    """As Label Studio exports a project with an audio label and a question (its format's documentation)."""
    regions = [
        {"type": "labels", "from_name": "label", "to_name": "audio", "original_length": 5.0, "id": str(k),
         "value": {"start": event.onset, "end": event.offset, "channel": 0, "labels": [event.label]}}
        for k, event in enumerate(EVENTS)
    ]  # fmt: skip
    answer = {"type": "choices", "from_name": "noise", "to_name": "audio", "value": {"choices": ["loud"]}}
    return {
        "id": 7,
        "data": {"audio": "/data/upload/1/a.wav"},
        "annotations": [{"id": 1, "was_cancelled": True, "result": []}, {"id": 2, "result": [*regions, answer]}],
    }


def test_label_studio_regions(source):
    path = source / "export.json"
    path.write_text(json.dumps([label_studio_task()]))
    assert read(source, path) == ({"audio/a.wav": EVENTS}, [])
    odd = {"id": 8, "data": {"audio": "/data/upload/1/a.wav"}, "annotations": [{"result": [{"value": [1, 2]}, "x"]}]}
    path.write_text(json.dumps([odd, label_studio_task()]))
    found, problems = read(source, path)
    assert found == {"audio/a.wav": EVENTS} and "task is not as Label Studio exports it" in problems[0][2]
    path.write_text(
        json.dumps([{"audio": "/data/upload/1/a.wav", "label": [{"start": 1, "end": 2, "labels": ["dog"]}]}])
    )
    with pytest.raises(DataError, match="as JSON_MIN has none; export the project as JSON"):
        read(source, path)


def test_the_export_of_label_studio_s_own_library(source):
    interface = pytest.importorskip("label_studio_sdk.label_interface", reason="label-studio-sdk is not installed")
    config = interface.LabelInterface(
        '<View><Labels name="label" toName="audio"><Label value="dog"/><Label value="two / words"/></Labels>'
        '<Audio name="audio" value="$audio"/></View>'
    )
    answer = {"label": [{"start": event.onset, "end": event.offset, "label": event.label} for event in EVENTS]}
    annotation = {**config.generate_sample_annotation(), "result": [r._dict() for r in config.create_regions(answer)]}
    task = {**config.generate_sample_task(), "data": {"audio": "s3://bucket/a.wav"}, "annotations": [annotation]}
    assert len(annotation["result"]) == len(EVENTS)
    (source / "e.json").write_text(json.dumps([task]))
    assert read(source, source / "e.json") == ({"audio/a.wav": EVENTS}, [])


def test_audioset_strong_names_videos_and_identifiers(tmp_path):
    for name in ("Yb0RFKhbpFJA_30.000_40.000.wav", "Yb0RFKhbpFJA_90.000_100.000.wav"):
        write(tmp_path / "audio" / name, barks(1.0))
    table = tmp_path / "audioset_train_strong.tsv"
    header = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel"
    table.write_text(f"{header}\nb0RFKhbpFJA_30000\t1.0\t1.4\t/m/05x_td\nb0RFKhbpFJA_90000\t0.5\t2.0\t/t/dd00125\n")
    first, second = (f"audio/Yb0RFKhbpFJA_{k}.wav" for k in ("30.000_40.000", "90.000_100.000"))
    found, problems = read(tmp_path, table)
    assert found == {first: [Event(1.0, 1.4, "/m/05x_td")], second: [Event(0.5, 2.0, "/t/dd00125")]} and not problems
    (tmp_path / "mid_to_display_name.tsv").write_text("/m/05x_td\tDishes, pots, and pans\n")
    assert read(tmp_path, table)[0][first] == [Event(1.0, 1.4, "Dishes, pots, and pans")]


#: The published layouts, with lines made to their documentation.
PUBLISHED = {
    "ESC-50": (
        "filename,fold,target,category,esc10,src_file,take\n1-100032-A-0.wav,1,0,dog,True,100032,A\n",
        ("1-100032-A-0.wav", ("dog",), "100032", "1"),
    ),
    "FSD50K": (
        'fname,labels,mids,split\n64760,"Electric_guitar,Guitar,Music","/m/02sgy,/m/0342h,/m/04rlf",train\n',
        ("64760", ("Electric_guitar", "Guitar", "Music"), "", "train"),
    ),
    "UrbanSound8K": (
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark\n",
        ("100032-3-0-0.wav", ("dog_bark",), "100032", "5"),
    ),
    "Kitchen20": (
        "filename,category,fold,group\n0-158737-A-0.flac,blender,1,158737\n",
        ("0-158737-A-0.flac", ("blender",), "158737", "1"),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_tables_are_read(tmp_path, name):
    text, expected = PUBLISHED[name]
    path = tmp_path / "table.csv"
    path.write_text(text)
    (row,) = read_table(path, Columns())
    assert (row.file, row.labels, row.group, row.fold) == expected and row.times is None
    if name == "FSD50K":
        (row,) = read_table(path, Columns(first_label=True))
        assert row.labels == ("Electric_guitar",)


def test_columns_can_be_named_and_rows_that_contradict_are_told(source):
    write(source / "audio/b.wav", barks(1.0))
    table = source / "t.csv"
    table.write_text("datei;art;quelle\na;Hund;1\nb.wav;Katze, alt;2\nb.wav;Hund;3\n")
    found, problems = read(source, table, filename="datei", label="art", group="quelle")
    assert found == {"audio/a.wav": ["Hund"], "audio/b.wav": ["Katze, alt", "Hund"]}
    assert [(line, "another group" in error) for _, line, error in problems] == [("4", True)]
    with pytest.raises(DataError, match="has no column 'x'; it has datei, art, quelle"):
        read(source, table, filename="x", label="art")
