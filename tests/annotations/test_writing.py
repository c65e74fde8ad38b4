"""Labels for annotation programs are what those programs' own libraries, and ours, read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from task_aware.annotations.writing import SUFFIXES, Labelled, label_paths, write_labels
from task_aware.data.labels import Event
from task_aware.importing.annotators import read_jams, read_textgrid
from task_aware.importing.items import Problems
from task_aware.importing.tables import Columns
from task_aware.importing.texts import read_text_file

#: Overlapping, also within a class; with names that hold what the formats' own signs are.
EVENTS = [
    Event(0.1234, 1.5, "Dog"),
    Event(0.5, 2.0, 'a "loud" one'),
    Event(1.0, 1.9999, "Dog"),
    Event(3.0, 3.0002, "Hund, groß"),
]
#: Times as they are written, to the millisecond, in the order of the file.
WRITTEN = [
    Event(0.123, 1.5, "Dog"),
    Event(0.5, 2.0, 'a "loud" one'),
    Event(1.0, 2.0, "Dog"),
    Event(3.0, 3.001, "Hund, groß"),
]
REFERENCE = [Event(0.0, 0.25, "Dog")]


def write(folder: Path, wanted: str, **kinds: list[Event]) -> list[Path]:
    write_labels(folder / "a", wanted, Labelled("in/a.wav", 4.0, 8000.0, kinds or {"": EVENTS}))
    paths = label_paths(folder / "a", wanted, list(kinds or [""]))
    assert sorted(folder.iterdir()) == sorted(paths)
    return paths


def same(found: list[Event], expected: list[Event] = WRITTEN) -> None:
    def key(event: Event) -> tuple[float, str]:
        return event.onset, event.label

    found, expected = sorted(found, key=key), sorted(expected, key=key)
    assert [event.label for event in found] == [event.label for event in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.onset, one.offset) == pytest.approx((other.onset, other.offset), abs=1e-6)


def imported(path: Path) -> list[Event]:
    """What `import_clips` reads."""
    problems = Problems()
    if path.suffix == ".txt":
        rows = read_text_file(path, "a.wav", Columns(), problems)
    else:
        rows = (read_jams if path.suffix == ".jams" else read_textgrid)(path, "a.wav", problems)
    events = [Event(*row.times, row.labels[0]) for row in rows]
    assert not problems.found
    return events


@pytest.mark.parametrize("wanted", SUFFIXES)
def test_our_own_import_reads_them(tmp_path, wanted):
    if wanted in ("textgrid", "jams"):
        pytest.importorskip("crowsetta" if wanted == "textgrid" else "jams")
    (path,) = write(tmp_path, wanted)
    same(imported(path))


def test_audacity_labels_as_crowsetta_reads_them(tmp_path):
    crowsetta = pytest.importorskip("crowsetta")
    (path,) = write(tmp_path, "audacity")
    labels = crowsetta.formats.seq.AudSeq.from_file(path)
    same([Event(*each) for each in zip(labels.start_times, labels.end_times, labels.labels, strict=True)])


def test_raven_selections_as_crowsetta_reads_them(tmp_path):
    crowsetta = pytest.importorskip("crowsetta")
    (path,) = write(tmp_path, "raven")
    table = crowsetta.formats.bbox.Raven.from_file(path, annot_col="Annotation").df
    same([Event(*each) for each in zip(table.begin_time_s, table.end_time_s, table.annotation, strict=True)])
    assert set(table.low_freq_hz) == {0.0} and set(table.high_freq_hz) == {8000.0}


def test_textgrid_as_pympi_reads_it(tmp_path):
    praat = pytest.importorskip("pympi").Praat
    (path,) = write(tmp_path, "textgrid", reference=REFERENCE, separated=EVENTS, nothing=[])
    grid = praat.TextGrid(str(path))
    tiers = {}
    for tier in grid.get_tiers():
        tiers.setdefault(tier.name.partition(" ")[0], []).extend(tier.get_intervals())
    assert grid.xmax == 4.0 and set(tiers) == {"reference", "separated", "nothing"}
    for kind, expected in (("reference", REFERENCE), ("separated", WRITTEN)):
        # pympi 1.71 doubles quotes when it writes, and does not undo it when it reads
        intervals = [Event(a, b, text.replace('""', '"')) for a, b, text in tiers[kind] if text]
        same(intervals, expected)


def test_jams_is_valid_and_read_by_its_own_library(tmp_path):
    jams = pytest.importorskip("jams")
    (path,) = write(tmp_path, "jams", reference=REFERENCE, separated=EVENTS)
    content = jams.load(str(path), validate=True, strict=True)
    kinds = {each.annotation_metadata.data_source: each for each in content.annotations}
    assert content.file_metadata.duration == 4.0
    for kind, expected in (("reference", REFERENCE), ("separated", WRITTEN)):
        same([Event(each.time, each.time + each.duration, each.value) for each in kinds[kind]], expected)


@pytest.mark.parametrize("wanted", ["audacity", "raven"])
def test_programs_of_one_track_get_a_file_for_each_kind(tmp_path, wanted):
    reference, separated = write(tmp_path, wanted, reference=REFERENCE, separated=EVENTS)
    assert reference.name == f"a.reference{SUFFIXES[wanted]}"
    same(imported(reference), REFERENCE)
    same(imported(separated))


@pytest.mark.parametrize("wanted", ["audacity", "raven"])
def test_a_name_cannot_begin_another_line(tmp_path, wanted):
    write_labels(tmp_path / "a", wanted, Labelled("a\n.wav", 4.0, 8000.0, {"": [Event(0, 1, "Dog\t\n9\t10\tCat")]}))
    same(imported(*[label_paths(tmp_path / "a", wanted, [""])[0]]), [Event(0, 1, "Dog 9 10 Cat")])
