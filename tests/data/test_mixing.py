"""What a mixture holds: events, rooms and a background, placed and labelled; the levels are in test_recipes.py."""

import warnings

import numpy as np
import pytest
import torch

from task_aware.base.errors import DataError
from task_aware.data import DynamicMixer, LabelEncoder, MixingConfig, RirBank, Soundbank, read_audio
from task_aware.data.levels import active_part

from .mixtures import LABELS, arrays, images, mixer, mixture_of, recipe, same, spans
from .recordings import RATE, write, write_table


def test_shapes_types_and_unused_rows(root, fuss):
    drawing = mixer(root, recipe(reverb=True, max_rir_seconds=0.1), RirBank(fuss, 0.1))
    for index in range(10):
        mixture = mixture_of(drawing, index)
        assert [array.shape for array in arrays(mixture)] == [(5, 80000), (5, 1600), (5,), (80000,), (5,)]
        assert [array.dtype.name for array in arrays(mixture)] == ["float32"] * 4 + ["int64"]
        used = mixture.labels >= 0
        assert 1 <= used.sum() <= 3 and used[: used.sum()].all()
        assert (np.diff(mixture.labels[used]) > 0).all()
        assert mixture.sources[used].any(axis=1).all() and not mixture.sources[~used].any()
        assert (mixture.gains[used] > 0).all() and not mixture.gains[~used].any()
        assert np.square(mixture.rirs).sum(axis=1) == pytest.approx(used.astype(float), abs=1e-4)
        assert {event.label for event in mixture.events} == {LABELS[label] for label in mixture.labels[used]}


def test_without_reverb_the_room_is_an_impulse(root):
    assert mixture_of(mixer(root), 0).rirs.tolist() == [[1.0]] * 5


def test_a_mixture_is_a_function_of_seed_and_index(root, fuss, tmp_path):
    config = MixingConfig.paper()
    first = mixer(root, config, RirBank(fuss), seed=7)
    forwards = [mixture_of(first, index) for index in range(6)]
    again = mixer(root, config, RirBank(fuss), seed=7)
    assert all(same(mixture_of(again, index), forwards[index]) for index in (5, 0, 3, 3))
    assert not same(mixture_of(mixer(root, config, RirBank(fuss), seed=8), 0), forwards[0])
    assert not same(forwards[0], forwards[1])
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("audio", "fuss"):
        (tmp_path / name).rename(moved / name)
    elsewhere = mixer(moved, config, RirBank(moved / "fuss"), seed=7)
    assert all(same(mixture_of(elsewhere, index), forwards[index]) for index in range(6))


def test_broken_files_are_as_if_they_were_not_there(root):
    config = recipe(distinct_classes=False)
    whole = [mixture_of(mixer(root, config), index) for index in range(5)]
    for number in range(3):
        (root / f"audio/train/soundbank/foreground/Dog/{number}.wav").write_text("broken")
    drawing = mixer(root, config)
    assert len(drawing.soundbank.rejected) == 3
    assert all(same(mixture_of(drawing, index), whole[index]) for index in range(5))


def test_a_batch_holds_each_mixture_as_it_is_alone(root, fuss):
    drawing = mixer(root, recipe(reverb=True, n_events=(2, 3), distinct_classes=False), RirBank(fuss))
    plans = [drawing.plan(index) for index in (4, 0, 9)]
    together = drawing.pack(plans).unpack()
    for b, plan in enumerate(plans):
        alone = drawing.pack([plan]).unpack()
        assert all(torch.equal(x[b], y[0]) for x, y in zip(together, alone, strict=True))


def test_what_is_unpacked_is_what_was_planned(root, fuss):
    rirs = RirBank(fuss)
    drawing = mixer(root, recipe(reverb=True, n_events=(2, 3), distinct_classes=False), rirs)
    looped = 0
    for index in range(12):
        plan, mixture = drawing.plan(index), mixture_of(drawing, index)
        sources, responses = np.zeros((5, 80000)), np.zeros((5, 8000))

        def kept(at):
            return read_audio(drawing.soundbank.folder / at.path) / drawing.soundbank.read(at.path).scale

        for at in plan.sources:
            samples = kept(at)
            sources[at.row, at.start : at.start + at.length] += at.scale * samples[at.first : at.first + at.length]
        for at in plan.rirs:
            response = read_audio(rirs.folder / at.path, channel=0)[:8000].astype(np.float64)
            responses[at.row, : len(response)] = response / np.linalg.norm(response)
        at = plan.background
        samples = kept(at)
        if at.length < 80000:
            looped += 1
            fade = np.pi / 2 * (np.arange(800) + 0.5) / 800
            period = at.length - 800
            unit = samples[:period].copy()
            unit[:800] = np.sin(fade) * samples[:800] + np.cos(fade) * samples[period:]
            samples = unit[(at.start + np.arange(80000)) % period]
        background = at.scale * samples[at.first : at.first + 80000]
        for found, expected in (
            (mixture.sources, sources),
            (mixture.rirs, responses),
            (mixture.background, background),
        ):
            assert np.abs(found - expected).max() <= 3e-5 * np.abs(expected).max()  # the .ogg is kept at 16 bit
    assert 0 < looped < 12


def test_labels_are_the_active_part_as_placed(root):
    drawing = mixer(root)
    for index in range(30):
        mixture = mixture_of(drawing, index)
        for row, label in enumerate(mixture.labels[mixture.labels >= 0]):
            part = active_part(mixture.sources[row], RATE)
            onset, offset = spans(mixture, LABELS[label])[0]
            # the frames of the recording and those of the clip differ by less than one
            assert onset * RATE == pytest.approx(part.first, abs=320)
            assert offset * RATE == pytest.approx(part.last, abs=320)
            assert 0.0 <= onset < offset <= 5.0


def test_onsets_are_uniform_with_the_event_inside(root):
    for name in ("Dog", "Dog_nOn", "Speech", "Frying_nOn_nOff"):
        for path in (root / "audio/train/soundbank/foreground" / name).iterdir():
            path.unlink()
    drawing = mixer(root, recipe(n_events=(1, 1)), clip_seconds=2.0)
    onsets = np.array([drawing.plan(index).events[0].onset for index in range(400)])
    # Speech_nOff/two.wav is left: 0.5 s
    assert onsets.min() >= 0.0 and onsets.max() <= 1.5
    counts, _ = np.histogram(onsets, bins=5, range=(0, 1.5))
    assert counts.min() > 50


def test_events_longer_than_the_clip_fill_it(root):
    drawing = mixer(root, recipe(n_events=(3, 3)))
    for index in range(5):
        mixture = mixture_of(drawing, index)
        assert spans(mixture, "Frying") == [(0.0, 5.0)]


def test_events_of_one_class_are_moved_apart_where_they_fit(root):
    for label in ("Speech", "Speech_nOff", "Frying_nOn_nOff"):
        for path in (root / "audio/train/soundbank/foreground" / label).iterdir():
            path.unlink()
    # 0.4 and 0.6 s of dogs
    drawing = mixer(root, recipe(n_events=(2, 2), distinct_classes=False), clip_seconds=1.1)
    first = set()
    for index in range(40):
        mixture = mixture_of(drawing, index)
        assert (mixture.labels >= 0).sum() == 1
        lengths = [round(offset - onset, 3) for onset, offset in spans(mixture, "Dog")]
        assert sorted(lengths) == [0.4, 0.6] or lengths == [1.0]  # side by side without a gap: joined
        first.add(lengths[0])
    assert {0.4, 0.6} <= first  # in either order
    tight = mixer(root, recipe(n_events=(2, 2), distinct_classes=False), clip_seconds=0.8)
    for index in range(20):
        assert len(spans(mixture_of(tight, index), "Dog")) == 1  # they must overlap: one event


def test_rooms_keep_levels_and_onsets(root, fuss):
    # rooms change the level of a tone by much, that of the noise in the other classes hardly
    tone = 0.3 * np.sin(2 * np.pi * 150 * np.arange(2 * RATE) / RATE)
    write(root / "audio/train/soundbank/foreground/Cat/tone.wav", tone)
    drawing = mixer(root, recipe(reverb=True, n_events=(2, 2)), RirBank(fuss))
    for index in range(20):
        mixture = mixture_of(drawing, index)
        for row, image in enumerate(images(mixture)[mixture.labels >= 0]):
            dry = np.square(mixture.sources[row], dtype=np.float64).sum()
            level = 10 * np.log10(np.square(image).sum() / dry)
            assert level == pytest.approx(-30.0, abs=1.0)
            (onset, _), *_ = spans(mixture, LABELS[mixture.labels[row]])
            assert not np.abs(image[: max(0, int(onset * RATE) - 321)]).max(initial=0.0) > 1e-6
            assert active_part(image, RATE).first / RATE == pytest.approx(onset, abs=0.021)


def test_sources_of_a_mixture_share_a_room(fuss, root):
    rirs = RirBank(fuss, 0.25)
    drawing = mixer(root, recipe(reverb=True, n_events=(3, 3), max_rir_seconds=0.25), rirs)
    responses = {room: [rirs.read(path).samples for path in paths] for room, paths in enumerate(rirs.rooms)}
    seen = set()
    for index in range(20):
        mixture = mixture_of(drawing, index)
        drawn = [
            (room, number)
            for row in range(3)
            for room, choices in responses.items()
            for number, response in enumerate(choices)
            if np.corrcoef(mixture.rirs[row], response)[0, 1] > 0.9999
        ]
        rooms = {room for room, _ in drawn}
        assert len(drawn) == 3 and len(rooms) == 1
        # the larger room has a response for each source, the other has one for all
        assert len(set(drawn)) == (3 if rooms == {0} else 1)
        seen |= rooms
    assert seen == {0, 1}


def test_broken_rooms_are_left_out(root, tmp_path):
    folder = tmp_path / "rooms"
    write(folder / "a.wav", np.zeros(100))
    write(folder / "b.wav", np.append(0.5, np.zeros(99)))
    write_table(folder / "rirs.tsv", "filename\troom", "a.wav\tone", "b.wav\ttwo")
    rirs = RirBank(folder, max_broken=0.5)
    drawing = mixer(root, recipe(reverb=True), rirs)
    for index in range(10):
        mixture = mixture_of(drawing, index)
        assert mixture.rirs[:, 0] == pytest.approx(np.array(mixture.labels >= 0, dtype=float))
    assert list(rirs.rejected) == ["a.wav"]
    with pytest.raises(DataError, match="2 of 2 recordings .* unusable"):
        write(folder / "b.wav", np.zeros(100))
        RirBank(folder, max_broken=0.5)


def test_short_backgrounds_are_looped_and_long_ones_cut(root):
    drawing = mixer(root, recipe(background_db=(-10.0, -10.0)))
    for index in range(10):
        background = mixture_of(drawing, index).background
        powers = np.square(background.reshape(-1, 1600), dtype=np.float64).mean(axis=1)
        assert 10 * np.log10(powers) == pytest.approx(np.full(50, -40.0), abs=1.0)


def test_a_bank_without_backgrounds_warns_once_and_has_none(root):
    for path in (root / "audio/train/soundbank/background").rglob("*.wav"):
        path.unlink()
    with pytest.warns(UserWarning, match=r"no backgrounds, so mixtures have none either") as caught:
        drawing = mixer(root)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixture = mixture_of(drawing, 0)
    assert not mixture.background.any()
    assert mixture.sources.any()


def test_fewer_recordings_than_events_are_used_again(root):
    config = recipe(n_events=(5, 5), distinct_classes=False)
    for label in ("Dog", "Dog_nOn", "Frying_nOn_nOff"):
        for path in (root / "audio/train/soundbank/foreground" / label).iterdir():
            path.unlink()
    mixture = mixture_of(mixer(root, config, clip_seconds=20.0), 0)
    assert 2 <= len(mixture.events) <= 5
    assert sum(offset - onset for onset, offset in spans(mixture, "Speech")) >= 3.4


def test_mixers_that_contradict_themselves_say_so(root, fuss):
    with pytest.raises(ValueError, match="n_events goes up to 3, but there are only 2 sources"):
        mixer(root, n_sources=2)
    with pytest.raises(DataError, match="reverb is on, but there are no room impulse responses"):
        mixer(root, recipe(reverb=True))
    with pytest.raises(ValueError, match="is read at 8000 Hz, but the mixer works at 16000 Hz"):
        mixer(root, recipe(reverb=True), RirBank(fuss, sample_rate=8000))
    with pytest.raises(ValueError, match="is cut at 0.1 s, but mixing.max_rir_seconds is 0.5"):
        mixer(root, recipe(reverb=True), RirBank(fuss, 0.1))
    with pytest.raises(ValueError, match=r"clip_seconds must be at least 0.1"):
        mixer(root, clip_seconds=0.0)
    with pytest.raises(ValueError, match="seed must be 0 or more"):
        mixer(root, seed=-1)
    with pytest.raises(ValueError, match="index must be 0 or more"):
        mixer(root).plan(-1)
    with pytest.raises(DataError, match="has 3 classes, but mixing.n_events requires at least 4 distinct"):
        mixer(root, recipe(n_events=(4, 4)))
    with pytest.raises(ValueError, match="The soundbank has the labels Speech, which the encoder does not know"):
        bank = Soundbank(root, ["Speech"])
        DynamicMixer(bank, None, LabelEncoder(["Dog"]), recipe(), n_sources=3, clip_seconds=1.0)


def test_doubled_classes_are_sources_of_their_own(root, fuss):
    """At most two of a class, from different recordings, in different places of the room; labels know one class."""
    config = recipe(reverb=True, max_rir_seconds=0.1, n_events=(2, 3), dupse_rate=1.0)
    drawing = mixer(root, config, RirBank(fuss, 0.1))
    doubled = 0
    for index in range(30):
        plan = drawing.plan(index)
        paths = [at.path for at in plan.sources]
        assert [at.row for at in plan.sources] == list(range((plan.labels >= 0).sum()))
        assert len(set(paths)) == len(paths)
        used = plan.labels[plan.labels >= 0]
        assert (np.diff(used) >= 0).all()
        kinds, counts = np.unique(used, return_counts=True)
        assert sorted(counts)[-1] <= 2 and (counts == 2).sum() <= 1
        assert {event.label for event in plan.events} == {LABELS[label] for label in kinds}
        for label in kinds:
            found = spans(plan, LABELS[label])
            assert all(before[1] < after[0] for before, after in zip(found, found[1:], strict=False))
        room = [at.path for at in plan.rirs]
        assert len(set(room)) == min(len(room), 1 if "rirs_01" in room[0].as_posix() else 3)
        doubled += counts.max() == 2
    assert doubled > 20  # of Frying there is one recording only


def test_a_share_of_the_mixtures_is_doubled_and_without_it_nothing_changes(root):
    plans = [mixer(root, recipe(n_events=(2, 3), dupse_rate=0.3)).plan(index) for index in range(60)]
    doubled = sum(len(set(used)) < len(used) for used in (plan.labels[plan.labels >= 0].tolist() for plan in plans))
    assert 5 < doubled < 35
    once = [mixer(root, recipe(n_events=(2, 3))).plan(index).labels for index in range(10)]
    assert all(len(set(used)) == len(used) for used in (labels[labels >= 0].tolist() for labels in once))


@pytest.mark.parametrize("reverb", [False, True])
def test_mixtures_may_have_no_event(root, fuss, reverb):
    drawing = mixer(root, recipe(reverb=reverb, max_rir_seconds=0.1, n_events=(0, 2)), RirBank(fuss, 0.1))
    empty = [index for index in range(30) if not drawing.plan(index).events]
    assert 3 < len(empty) < 20
    mixture = mixture_of(drawing, empty[0])
    assert not mixture.sources.any() and not mixture.gains.any() and (mixture.labels == -1).all()
    assert np.sqrt(np.square(mixture.background).mean()) == pytest.approx(
        10 ** (-50 / 20), rel=0.2
    )  # 20 dB below an event
    drawing.soundbank.background = []
    silent = mixture_of(drawing, empty[0])
    assert not silent.background.any() and silent.sources.shape == (5, 80000)
