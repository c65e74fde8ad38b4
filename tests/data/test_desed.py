from pathlib import Path

import pytest

from task_aware.base import tables as base_tables
from task_aware.base.errors import DataError
from task_aware.data import DESED_CLASSES, SPLITS, Event, read_events, read_split
from task_aware.data.desed import write_events
from task_aware.data.labels import join_labels

from .recordings import burst, write, write_table

STRONG = "filename\tonset\toffset\tevent_label"


def validation_table(root, *rows):
    return write_table(root / "metadata/validation/validation.tsv", STRONG, *rows)


def test_weak_clips_have_labels_in_class_order(root):
    split = read_split(root, "weak")
    assert [(clip.filename, clip.labels, clip.events) for clip in split.clips] == [
        ("Ya_10.000_20.000.wav", ("Dog", "Speech"), None),
        ("b.wav", ("Frying",), None),
    ]
    assert split.missing == ("gone.wav",)
    assert split.clips[0].path.name == "Ya_10.000_20.000.flac"
    assert split.reference == {}


def test_unlabelled_clips_have_neither_and_may_lie_in_subfolders(root):
    (clip,) = read_split(root, "unlabelled").clips
    assert clip.labels is None and clip.events is None
    assert clip.path == root / "audio/train/unlabel_in_domain/sub/c.ogg"


def test_strong_clips_have_events_and_may_have_none(root):
    split = read_split(root, "validation")
    assert split.reference == {
        "v1.wav": (Event(9.0, 10.115, "Speech"), Event(1.0, 2.0, "Dog")),
        "v2.wav": (),
    }
    assert all(clip.labels is None for clip in split.clips)
    assert read_events(split.metadata) == split.reference


def test_synthetic_and_public_are_where_desed_has_them(root):
    assert read_split(root, "synthetic").reference == {"0.wav": (Event(0.5, 1.5, "Dog"),)}
    assert read_split(root, "public").clips[0].path == root / "audio/eval/public/p.wav"


def test_names_may_lack_their_suffix_and_end_in_a_number(root):
    write_table(root / "metadata/train/weak.tsv", "filename\tevent_labels", "Ya_10.000_20.000\tDog")
    assert read_split(root, "weak").clips[0].path.name == "Ya_10.000_20.000.flac"


def test_the_exact_name_wins_over_another_suffix(root):
    write(root / "audio/validation/v1.flac", burst(0.1))
    assert read_split(root, "validation").clips[0].path.name == "v1.wav"


def test_one_recording_under_two_names_is_an_error(root):
    """It would be scored twice."""
    validation_table(root, "v1.wav\t1\t2\tDog", "./v1.wav\t3\t4\tDog", "v1.flac\t3\t4\tDog")
    with pytest.raises(
        DataError, match=r"validation.tsv:3 names the recording .*v1.wav as ./v1.wav, but a row above as"
    ):
        read_split(root, "validation")
    problems: list[str] = []
    split = read_split(root, "validation", problems=problems)
    assert [clip.filename for clip in split.clips] == ["v1.wav"] and len(problems) == 2


def test_windows_tables_are_read(root):
    path = root / "metadata/train/weak.tsv"
    path.write_bytes(b"\xef\xbb\xbffilename\tevent_labels\r\nb.wav\tFrying, Dog\r\n\r\n")
    assert read_split(root, "weak").clips[0].labels == ("Dog", "Frying")


def test_late_offsets_are_kept_where_the_clip_is_longer(root):
    validation_table(root, "v1.wav\t1\t12\tDog")
    with pytest.raises(DataError, match=r"validation.tsv:2 has the offset 12 s, but the clip ends at 10 s"):
        read_split(root, "validation")
    write(root / "audio/validation/v1.wav", burst(12.0))
    assert read_split(root, "validation").reference["v1.wav"][0].offset == 12.0


def test_events_of_a_clip_of_unknown_length_refuse_no_split(root):
    """One that is missing, and one that cannot be opened, which is said where it is read."""
    validation_table(root, "v1.wav\t1\t2\tDog", "gone.wav\t0\t400\tSpeech", "v2.wav\t0\t400\tSpeech")
    (root / "audio/validation/v2.wav").write_bytes(b"RIFF")
    split = read_split(root, "validation")
    assert split.missing == ("gone.wav",)
    assert split.reference == {"v1.wav": (Event(1.0, 2.0, "Dog"),), "v2.wav": (Event(0.0, 400.0, "Speech"),)}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("v1.wav\t2\t2\tDog", "onset 2 s and the offset 2 s; the onset must not be negative"),
        ("v1.wav\t-1\t2\tDog", "onset -1 s"),
        ("v1.wav\tone\t2\tDog", "onset 'one' and the offset '2'; both must be numbers"),
        ("v1.wav\t1\tnan\tDog", "offset 'nan'"),
        ("v1.wav\t1\t2\tBird", "unknown label 'Bird'"),
        ("v1.wav\t1\t2", "unknown label ''"),
        ("v1.wav\t\t\tDog", "both must be numbers of seconds"),
        ("\t1\t2\tDog", "has no filename"),
        ("v1.wav\t1\t2\tDog\textra", "has 5 fields, but the header has 4"),
        ('"v"1.wav\t1\t2\tDog', "cannot be split into fields .*put a field that begins with a quote into quotes"),
        ('"v1.wav\t1\t2\tDog\nv2.wav\t1\t2\tDog', "cannot be split into fields"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(root, row, message):
    validation_table(root, "v2.wav\t\t\t", row)
    with pytest.raises(DataError, match=rf"validation.tsv:3 .*{message}") as caught:
        read_split(root, "validation", DESED_CLASSES)
    assert "\n" not in str(caught.value)


def test_unknown_weak_labels_are_named(root):
    with pytest.raises(DataError, match=r"weak.tsv:2 has the unknown label 'Speech'; expected one of Dog"):
        read_split(root, "weak", ["Dog"])


def test_a_table_has_the_labels_that_it_has(root):
    """Of any script, with spaces, slashes and commas; DESED's are no bound."""
    label = 'Dishes, pots / \u30ab\u30e9\u30b9 "loud"'
    write_table(root / "metadata/train/weak.tsv", "filename\tevent_labels")
    rows = [("b.wav", join_labels([label, "Zebra", "Bird"]))]
    base_tables.write_table(root / "metadata/train/weak.tsv", ("filename", "event_labels"), rows)
    assert read_split(root, "weak").clips[0].labels == ("Bird", label, "Zebra")
    base_tables.write_table(
        root / "metadata/validation/validation.tsv",
        ("filename", "onset", "offset", "event_label"),
        [("v1.wav", "0", "1", label)],
    )
    assert read_split(root, "validation").reference == {"v1.wav": (Event(0.0, 1.0, label),)}
    write_table(root / "metadata/validation/validation.tsv", "filename\tonset\toffset\tevent_label", "v1.wav\t0\t1\t")
    with pytest.raises(DataError, match=r"validation.tsv:2 has no label; name the class"):
        read_split(root, "validation")


def test_a_split_that_cannot_be_used_says_why(root, tmp_path):
    with pytest.raises(ValueError, match="one of weak, unlabelled"):
        read_split(root, "train")
    with pytest.raises(DataError, match=r"weak.tsv does not exist"):
        read_split(tmp_path / "elsewhere", "weak")
    validation_table(root)
    with pytest.raises(DataError, match="a header but no rows"):
        read_split(root, "validation")
    write_table(root / "metadata/validation/validation.tsv", "filename,onset,offset,event_label", "v1.wav,1,2,Dog")
    with pytest.raises(DataError, match=r"validation.tsv:1 has no column filename, onset, offset, event_label"):
        read_split(root, "validation")
    (root / "metadata/validation/validation.tsv").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        read_split(root, "validation")


def test_too_many_missing_files_stop(root):
    (root / "audio/train/weak/b.wav").unlink()
    with pytest.raises(DataError, match=r"2 of the 3 clips of .*weak.tsv have no audio .*b.wav.* at most 50%"):
        read_split(root, "weak")
    assert len(read_split(root, "weak", max_missing=0.7).clips) == 1
    (root / "audio/train/weak/Ya_10.000_20.000.flac").unlink()
    with pytest.raises(DataError, match="3 of the 3 clips"):
        read_split(root, "weak", max_missing=1.0)
    (root / "audio/train/weak").rmdir()
    with pytest.raises(DataError, match=r"audio/train/weak, the audio folder of .* is not a folder"):
        read_split(root, "weak")


def test_real_corpus_is_read_whole(minidesed):
    sizes = {name: len(read_split(minidesed, name).clips) for name in SPLITS if name != "public"}
    assert sizes == {"weak": 40, "unlabelled": 40, "synthetic": 40, "validation": 50}
    reference = read_split(minidesed, "validation").reference
    assert sum(map(len, reference.values())) == 120
    assert sum(not events for events in reference.values()) == 2
    assert {event.label for events in reference.values() for event in events} <= set(DESED_CLASSES)


def test_write_events(tmp_path: Path):
    path = tmp_path / "deep" / "events.tsv"
    write_events(path, {"a.wav": [Event(0.12345, 10.0, "Dog")], "b.wav": []})
    assert path.read_text() == "filename\tonset\toffset\tevent_label\na.wav\t0.123\t10.000\tDog\nb.wav\t\t\t\n"
    assert list(path.parent.iterdir()) == [path]


def test_written_events_are_read_again_however_short(tmp_path):
    """Three decimals leave an event at least 1 ms."""
    spans = [(1.0, 1.0), (1.2344, 1.2346), (9.9996, 9.99961), (0.0, 1e-9), (0.0004, 0.0006), (2.0, 3.0)]
    write_events(tmp_path / "a.tsv", {"a.wav": [Event(*span, "Dog") for span in spans]})
    found = [(event.onset, event.offset) for event in read_events(tmp_path / "a.tsv")["a.wav"]]
    assert found == [(1.0, 1.001), (1.234, 1.235), (10.0, 10.001), (0.0, 0.001), (0.0, 0.001), (2.0, 3.0)]


NAMES = [
    '"Dog" 1.wav',
    'a "b" c.wav',
    '"',
    "tab\there.wav",
    "two\nlines.wav",
    "old\rline.wav",
    "sep\u2028\x85\x0c.wav",
    "'q'.wav",
]


def test_names_with_quotes_tabs_and_line_breaks_are_read_as_written(tmp_path):
    events = {name: (Event(1.0, 2.0, "Dog"),) for name in NAMES} | {"none\t.wav": ()}
    write_events(tmp_path / "a.tsv", events)
    assert read_events(tmp_path / "a.tsv") == events
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(tmp_path / "a.tsv", sep="\t")
    assert list(table["filename"]) == list(events)


def test_a_row_after_a_name_of_two_lines_has_its_own_line(root):
    validation_table(root, '"v1\n.wav"\t1\t2\tDog', "", "v2.wav\t2\t1\tDog")
    with pytest.raises(DataError, match=r"validation.tsv:5 has the onset 2 s"):
        read_split(root, "validation")


def test_a_table_without_a_usable_row_is_one_sentence(root):
    write_table(root / "metadata/train/weak.tsv", "filename\tevent_labels", "\tSpeech")
    problems: list[str] = []
    with pytest.raises(DataError, match="has no row that can be used"):
        read_split(root, "weak", problems=problems)
    assert "has no filename" in problems[0]
