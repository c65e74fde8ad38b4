"""The corpus on disk: DESED's layout, labels that are true, the same bytes from the same seed."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from task_aware.data.desed import read_split
from task_aware.data.labels import DESED_CLASSES
from task_aware.data.levels import active_part
from task_aware.data.rirs import RirBank
from task_aware.data.soundbank import Soundbank
from task_aware.synthesis import build as build_module
from task_aware.synthesis import contents
from task_aware.synthesis.contents import make_clip, make_room, make_soundbank_event, plan_clips
from task_aware.synthesis.scenes import CLIP_SECONDS, compose
from task_aware.synthesis.signals import SAMPLE_RATE, rms
from task_aware.synthesis.sizes import SIZES

TINY = SIZES["tiny"]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("split", ["weak", "unlabelled", "synthetic", "validation"])
def test_the_reader_of_desed_reads_every_split(tiny_corpus: Path, split: str) -> None:
    clips = read_split(tiny_corpus, split).clips
    assert len(clips) == getattr(TINY, split)
    for clip in clips:
        header = soundfile.info(clip.path)
        assert (header.samplerate, header.channels, header.subtype) == (SAMPLE_RATE, 1, "PCM_16")
        assert header.frames == CLIP_SECONDS * SAMPLE_RATE
        if split == "weak":
            assert clip.labels
        if split in ("synthetic", "validation"):
            assert clip.events is not None
            assert len({event.label for event in clip.events}) == len(clip.events) <= 4
    if split == "validation":
        assert sum(not clip.events for clip in clips) == 1


def test_soundbank_and_responses_are_complete(tiny_corpus: Path) -> None:
    bank = Soundbank(tiny_corpus)
    assert {label: len(paths) for label, paths in bank.foreground.items()} == dict.fromkeys(DESED_CLASSES, TINY.events)
    assert len(bank.background) == TINY.backgrounds
    assert bank.absent == ()
    rooms = RirBank(tiny_corpus / "rirs").rooms
    assert [len(room) for room in rooms] == [TINY.positions] * TINY.rooms
    durations = table(tiny_corpus / "metadata/validation/validation_durations.tsv")
    assert [row["duration"] for row in durations] == ["10.0"] * TINY.validation


def test_labels_lie_where_the_sound_is(tiny_corpus: Path) -> None:
    """What lies under any label is louder than what lies under none, low rumble and reverberation aside."""
    compared = 0
    for split in ("synthetic", "validation"):
        for clip in read_split(tiny_corpus, split).clips:
            samples = np.diff(soundfile.read(clip.path)[0])
            labelled, reverberant = np.zeros(len(samples), dtype=bool), np.zeros(len(samples), dtype=bool)
            for event in clip.events or ():
                first, last = round(event.onset * SAMPLE_RATE), round(event.offset * SAMPLE_RATE)
                labelled[first:last] = True
                reverberant[last : last + SAMPLE_RATE // 2] = True
            rest = ~labelled & ~reverberant
            if labelled.any() and rest.sum() > SAMPLE_RATE // 2:
                assert rms(samples[labelled]) > 1.2 * rms(samples[rest]), clip.path.name
                compared += 1
    assert compared > 5


def test_building_again_gives_the_same_bytes_whatever_the_threads(
    tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module.os, "cpu_count", lambda: 1)
    build_module.build(tmp_path, seed=0, size="tiny", progress=False)
    files = sorted(path.relative_to(tiny_corpus) for path in tiny_corpus.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    for file in files:
        assert (tiny_corpus / file).read_bytes() == (tmp_path / file).read_bytes(), file


def test_files_hold_what_the_recipe_says(tiny_corpus: Path) -> None:
    expected = make_soundbank_event(0, "Cat", 1)
    stored, _ = soundfile.read(tiny_corpus / "audio/train/soundbank/foreground/Cat/cat_001.flac")
    np.testing.assert_allclose(stored, expected, atol=1.0 / 32768)
    plan = plan_clips(0, "validation", TINY)[2]
    samples, events = make_clip(0, plan, TINY)
    stored, _ = soundfile.read(tiny_corpus / "audio/validation/val_002.flac")
    np.testing.assert_allclose(stored, samples, atol=1.0 / 32768)
    rows = [
        row for row in table(tiny_corpus / "metadata/validation/validation.tsv") if row["filename"] == "val_002.flac"
    ]
    assert [(float(row["onset"]), float(row["offset"]), row["event_label"]) for row in rows] == [
        (pytest.approx(event.onset, abs=1e-3), pytest.approx(event.offset, abs=1e-3), event.label) for event in events
    ]


def test_another_seed_gives_other_sounds() -> None:
    first, other = (make_soundbank_event(seed, "Dog", 0) for seed in (0, 1))
    assert len(first) != len(other) or not np.allclose(first, other)
    assert plan_clips(0, "weak", TINY) != plan_clips(1, "weak", TINY)


def test_parts_share_neither_sounds_nor_rooms_with_validation() -> None:
    states = {
        part: {
            contents._generator(0, part, kind, k).bit_generator.state["state"]["state"]
            for kind in range(16)
            for k in range(8)
        }
        for part in ("soundbank", "weak", "unlabelled", "synthetic", "validation")
    }
    assert len(set().union(*states.values())) == sum(len(part) for part in states.values())
    sizes = {part: {tuple(make_room(0, part, k).size) for k in range(8)} for part in ("soundbank", "validation")}
    assert not sizes["soundbank"] & sizes["validation"]


def test_the_full_plan_is_balanced_and_mostly_polyphonic() -> None:
    plans = plan_clips(0, "validation", SIZES["full"])
    counts = [len(plan.events) for plan in plans]
    assert [counts.count(k) for k in range(5)] == [3, 28, 45, 30, 14]
    classes = [label for plan in plans for label, _ in plan.events]
    frequency = [classes.count(label) for label in DESED_CLASSES]
    assert max(frequency) - min(frequency) <= 2
    assert all(len({label for label, _ in plan.events}) == len(plan.events) for plan in plans)


def test_compose_keeps_levels_and_labels() -> None:
    """Against a background of zeros, one dry event stands where its label says, at its level."""
    rng = np.random.default_rng(0)
    n = round(CLIP_SECONDS * SAMPLE_RATE)
    for seed in range(5):
        event = rng.standard_normal(2 * SAMPLE_RATE)
        event /= active_part(event, SAMPLE_RATE).rms
        clip, labels = compose(np.random.default_rng(seed), [("Dog", event)], np.zeros(n + 500), None)
        (label,) = labels
        assert label.label == "Dog"
        part = active_part(clip, SAMPLE_RATE)
        assert (part.first / SAMPLE_RATE, part.last / SAMPLE_RATE) == (label.onset, label.offset)
        assert 2.0 <= label.offset - label.onset <= 2.04
        assert -55.0 <= 20 * np.log10(part.rms) <= -46.0 + 25.0


def test_a_room_keeps_the_energy_and_the_onset() -> None:
    n = round(CLIP_SECONDS * SAMPLE_RATE)
    event = np.random.default_rng(1).standard_normal(SAMPLE_RATE)
    room = make_room(0, "validation", 0)
    dry, dry_labels = compose(np.random.default_rng(3), [("Cat", event)], np.zeros(n), None)
    wet, wet_labels = compose(np.random.default_rng(3), [("Cat", event)], np.zeros(n), room)
    assert wet_labels == dry_labels
    assert np.sum(wet**2) == pytest.approx(np.sum(dry**2), rel=1e-6)
    first_dry, first_wet = (int(np.argmax(np.abs(x) > 0.1 * np.abs(x).max())) for x in (dry, wet))
    assert 0 <= first_wet - first_dry <= 0.01 * SAMPLE_RATE
    assert not np.allclose(wet, dry)


def test_loud_clips_stay_below_full_scale() -> None:
    spike = np.zeros(8000)
    spike[::1600] = 300.0
    clip, _ = compose(np.random.default_rng(0), [("Dishes", spike)] * 4, np.zeros(160000), None)
    assert np.abs(clip).max() <= 0.95 + 1e-9
