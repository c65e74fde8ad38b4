import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from task_aware.base.errors import DataError
from task_aware.data import DynamicMixer, LabelEncoder, MixingConfig, RirBank, Soundbank, read_audio
from task_aware.data.levels import active_part

from .recordings import burst, write, write_table

LABELS = ("Cat", "Dog", "Frying", "Speech")
RATE = 16000


def recipe(**changes):
    """One to three events without a room at one level, so that the numbers can be told."""
    plain = {
        "n_events": (1, 3),
        "foreground_db": (0.0, 0.0),
        "background_db": (-20.0, -20.0),
        "gain_db": (0.0, 0.0),
        "reverb": False,
    }
    return MixingConfig(**{**plain, **changes})


def mixer(root, config=None, rirs=None, *, clip_seconds=5.0, n_sources=5, seed=0, bank=None, **options):
    bank = bank or Soundbank(root, LABELS, max_broken=0.5, **options)
    return DynamicMixer(
        bank,
        rirs,
        LabelEncoder(LABELS),
        config or recipe(),
        n_sources=n_sources,
        clip_seconds=clip_seconds,
        seed=seed,
    )


def mixture_of(drawing, index):
    """A mixture as the training device has it."""
    plan = drawing.plan(index)
    dry = drawing.pack([plan]).unpack()
    rows = {name: tensor[0].numpy() for name, tensor in dry._asdict().items()}
    return SimpleNamespace(**rows, labels=plan.labels, events=plan.events)


def images(mixture):
    """What reverb_mix defines: the causal convolution, cut at the length of the clip."""
    length = mixture.sources.shape[1]
    spectra = np.fft.rfft(mixture.sources, 2 * length) * np.fft.rfft(mixture.rirs, 2 * length)
    return mixture.gains[:, None] * np.fft.irfft(spectra, 2 * length)[:, :length]


def decibels(linear):
    return 20 * np.log10(linear)


def spans(mixture, label):
    return [(event.onset, event.offset) for event in mixture.events if event.label == label]


def arrays(mixture):
    return [mixture.sources, mixture.rirs, mixture.gains, mixture.background, mixture.labels]


def same(first, second):
    equal = all(np.array_equal(one, other) for one, other in zip(arrays(first), arrays(second), strict=True))
    return equal and first.events == second.events


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


def test_a_class_of_several_events_keeps_their_levels(root):
    config = recipe(n_events=(2, 2), distinct_classes=False, foreground_db=(-30.0, 0.0), reference_db=-10.0)
    drawing = mixer(root, config, clip_seconds=4.0)
    ratios = []
    for index in range(150):
        mixture = mixture_of(drawing, index)
        if len(mixture.events) == 2 and mixture.events[0].label == mixture.events[1].label:
            parts = [
                mixture.sources[0, round(event.onset * RATE) : round(event.offset * RATE)] for event in mixture.events
            ]
            quiet, loud = sorted(active_part(part, RATE).rms for part in parts)
            assert loud == pytest.approx(1.0, rel=1e-3)
            assert -40.01 <= decibels(mixture.gains[0]) <= -10.0
            ratios.append(decibels(quiet / loud))
    assert len(ratios) > 5
    assert -30.0 <= min(ratios) < -5.0


def test_paper_recipe(root):
    config = MixingConfig.paper()
    config.reverb = False
    counts, levels, backgrounds = [], [], []
    drawing = mixer(root, config)
    for index in range(300):
        mixture = mixture_of(drawing, index)
        used = mixture.labels >= 0
        gains = decibels(mixture.gains[used])
        background = decibels(active_part(mixture.background, RATE).rms)
        # the gain of a row is that of its loudest event, so the quietest one may lie lower
        assert -35.01 <= background <= gains.min() + 5.01
        counts.append(used.sum())
        levels += gains.tolist()
        backgrounds.append(background)
    assert -35.0 <= min(levels) < -30.0 and -2.0 < max(levels) <= 1e-4
    assert set(counts) == {1, 2, 3}
    assert max(backgrounds) > -5.0
    assert config.n_events == (1, 5) and not config.distinct_classes


def test_paper_recipe_draws_recordings_not_classes(root):
    for number in range(16):
        write(root / f"audio/train/soundbank/foreground/Cat/{number}.wav", burst(0.2, seed=number))
    config = recipe(n_events=(1, 1), distinct_classes=False)
    drawing = mixer(root, config)
    by_recording = [drawing.plan(index).labels[0] for index in range(150)]
    assert np.mean(np.array(by_recording) == 0) == pytest.approx(16 / 21, abs=0.12)
    drawing = mixer(root, recipe(n_events=(1, 1)))
    by_class = [drawing.plan(index).labels[0] for index in range(150)]
    assert np.mean(np.array(by_class) == 0) == pytest.approx(1 / 4, abs=0.12)


def test_balanced_recipe(root):
    config = MixingConfig.balanced()
    config.reverb = False
    with pytest.warns(UserWarning, match="has 3 classes, so mixtures have at most that many of the 4"):
        drawing = mixer(root, config)
    counts, spreads, ratios, loudest = [], [], [], []
    for index in range(200):
        mixture = mixture_of(drawing, index)
        gains = decibels(mixture.gains[mixture.labels >= 0])
        counts.append(len(gains))
        spreads.append(gains.max() - gains.min())
        ratios.append(decibels(active_part(mixture.background, RATE).rms) - gains.max())
        loudest.append(gains.max())
    assert set(counts) == {2, 3}
    assert 8.0 < max(spreads) <= 10.01
    assert -25.01 <= min(ratios) < -23.0 and -10.0 < max(ratios) <= -7.99
    assert -60.01 <= min(loudest) < -45.0 and -15.0 < max(loudest) <= -9.99


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
    with pytest.warns(UserWarning, match=r"no backgrounds, so mixtures have none") as caught:
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_events": (3, 2)}, "mixing.n_events must be two numbers, the lower one first"),
        ({"n_events": (0, 2)}, "mixing.n_events must start at 1"),
        ({"foreground_db": (0.0,)}, "mixing.foreground_db must be two numbers"),
        ({"gain_db": (0.0, float("inf"))}, "mixing.gain_db must be two numbers"),
        ({"background_reference": "mean"}, "mixing.background_reference must be"),
        ({"background_reference": "quietest_ceiling", "background_db": (-5.0, -8.0)}, "mixing.background_db"),
        (
            {
                "background_reference": "quietest_ceiling",
                "background_db": (-15.0, 5.0),
                "foreground_db": (-35.0, 0.0),
            },
            "mixing.background_db starts at -15 dB, above the ceiling of -30 dB",
        ),
        ({"reference_db": float("nan")}, "mixing.reference_db must be finite"),
        ({"max_rir_seconds": 0.0}, "mixing.max_rir_seconds must be above 0"),
    ],
)
def test_recipes_that_cannot_be_drawn_name_the_option(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


def test_mixers_that_contradict_themselves_say_so(root, fuss):
    with pytest.raises(ValueError, match="n_events goes up to 3 and there are 2 sources"):
        mixer(root, n_sources=2)
    with pytest.raises(DataError, match="reverb is on and there are no room impulse responses"):
        mixer(root, recipe(reverb=True))
    with pytest.raises(ValueError, match="is read at 8000 Hz and the mixer at 16000 Hz"):
        mixer(root, recipe(reverb=True), RirBank(fuss, sample_rate=8000))
    with pytest.raises(ValueError, match="is cut at 0.1 s and mixing.max_rir_seconds is 0.5"):
        mixer(root, recipe(reverb=True), RirBank(fuss, 0.1))
    with pytest.raises(ValueError, match=r"clip_seconds must be at least 0.1"):
        mixer(root, clip_seconds=0.0)
    with pytest.raises(ValueError, match="seed must be 0 or more"):
        mixer(root, seed=-1)
    with pytest.raises(ValueError, match="index must be 0 or more"):
        mixer(root).plan(-1)
    with pytest.raises(DataError, match="has 3 classes and mixing.n_events wants at least 4 distinct"):
        mixer(root, recipe(n_events=(4, 4)))
    with pytest.raises(ValueError, match="The soundbank has Speech, which the encoder does not know"):
        bank = Soundbank(root, ["Speech"])
        DynamicMixer(bank, None, LabelEncoder(["Dog"]), recipe(), n_sources=3, clip_seconds=1.0)


def test_changed_recipes_are_checked_again(root):
    config = recipe()
    config.n_events = (0, 1)
    with pytest.raises(ValueError, match="mixing.n_events must start at 1"):
        mixer(root, config)


@pytest.mark.parametrize("config", [MixingConfig.balanced(), MixingConfig.paper()])
def test_mixtures_of_real_recordings(minidesed, config):
    bank, rirs = Soundbank(minidesed), RirBank(minidesed / "rirs")
    encoder = LabelEncoder(bank.labels)
    drawing = DynamicMixer(bank, rirs, encoder, config, n_sources=5, clip_seconds=5.0, seed=1)
    inside = []
    for index in range(40):
        mixture = mixture_of(drawing, index)
        assert all(np.isfinite(array).all() for array in arrays(mixture))
        for row, image in enumerate(images(mixture)[mixture.labels >= 0]):
            labelled = np.zeros(80000, dtype=bool)
            for onset, offset in spans(mixture, bank.labels[mixture.labels[row]]):
                labelled[round(onset * RATE) : round(offset * RATE)] = True
            dry = np.square(mixture.sources[row], dtype=np.float64)
            assert dry[labelled].sum() > 0.999 * dry.sum()
            inside.append(np.square(image[labelled]).sum() / np.square(image).sum())
    assert min(inside) > 0.75 and np.median(inside) > 0.99
