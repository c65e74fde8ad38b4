import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from task_aware import ops
from task_aware.base.errors import DataError
from task_aware.data.batches import BatchSizes, StepDataset
from task_aware.data.clips import ClipStream, fit_length
from task_aware.data.corpus import Corpus
from task_aware.data.desed import Clip, Split
from task_aware.data.labels import DESED_CLASSES, LabelEncoder
from task_aware.data.mixing_config import MixingConfig


def make_split(folder, n_clips: int, broken: int = 0) -> Split:
    clips = []
    for k in range(n_clips):
        path = folder / f"{k}.wav"
        if k < broken:
            path.write_bytes(b"not audio")
        else:
            soundfile.write(path, np.full(1600, (k + 1) / 100, np.float32), 16000)
        clips.append(Clip(path, None, ("Cat", "Dog"), path.name))
    return Split("weak", tuple(clips), (), folder / "weak.tsv")


def stream(split: Split, **options) -> ClipStream:
    return ClipStream(split, 3, sample_rate=16000, n_samples=2000, **options)


def test_a_pass_has_every_clip_once_and_passes_differ(tmp_path):
    clips = stream(make_split(tmp_path, 6))
    first, second = ([clips.read(k)[0].filename for k in range(start, start + 6)] for start in (0, 6))
    assert sorted(first) == sorted(second) == [f"{k}.wav" for k in range(6)]
    assert first != second
    assert [clips.read(k)[0].filename for k in range(6)] == first


def test_a_broken_clip_is_named_and_another_taken(tmp_path, caplog):
    clips = stream(make_split(tmp_path, 6, broken=1), max_broken=0.2)
    names = {clips.read(k)[0].filename for k in range(12)}
    assert names == {f"{k}.wav" for k in range(1, 6)}
    assert len(clips.broken) == 1 and "0.wav" in caplog.text


def test_too_many_broken_clips_stop_the_run(tmp_path):
    clips = stream(make_split(tmp_path, 6, broken=2))
    with pytest.raises(DataError, match="clips in .*weak.tsv are broken, but training skips at most 10%"):
        for position in range(6):
            clips.read(position)


def test_an_empty_split_is_an_error(tmp_path):
    with pytest.raises(DataError, match="names no clip whose recording exists"):
        stream(make_split(tmp_path, 0))


def test_fit_length_cuts_and_pads():
    assert fit_length(np.ones(5), 3).tolist() == [1, 1, 1]
    assert fit_length(np.ones(2), 3).tolist() == [1, 1, 0]


def dataset(corpus: Corpus, first: int = 0, rank: int = 0, world_size: int = 1) -> StepDataset:
    return StepDataset(
        first_step=first,
        last_step=4,
        sizes=lambda step: BatchSizes(2, 1, 1) if step else BatchSizes(3, 0, 0),
        encoder=corpus.encoder,
        output_frames=lambda n_samples: (n_samples // 1280, 0.08),
        mixer=corpus.mixer(MixingConfig(n_events=(1, 2)), n_sources=3, seconds=2.0, seed=5),
        weak=corpus.stream("weak", 1, 10.0),
        unlabelled=corpus.stream("unlabelled", 2, 10.0),
        rank=rank,
        world_size=world_size,
    )


def flat(batch) -> list[torch.Tensor]:
    return [x for part in batch.unpack() if part is not None for x in part]


def test_shapes_of_a_batch(tiny_corpus):
    corpus = Corpus(tiny_corpus)
    steps = dataset(corpus)
    first, second = steps[0].unpack(), steps[1].unpack()
    assert first.weak is None and first.unlabelled is None
    assert first.strong.sources.shape == (3, 3, 32000)
    assert first.strong.gains.shape == (3, 3) and first.strong.background.shape == (3, 32000)
    assert first.strong.frames.shape == (3, 25, 10)
    assert second.weak.waveform.shape == (1, 160000) and second.weak.labels.shape == (1, 10)
    assert second.weak.labels.sum() >= 1 and second.unlabelled.labels.sum() == 0
    assert {x.dtype for x in flat(steps[1])} == {torch.float32, torch.int64}


def test_frame_labels_are_those_of_the_mixture(tiny_corpus):
    corpus = Corpus(tiny_corpus)
    steps = dataset(corpus)
    batch, plan = steps[0], steps.mixer.plan(0)
    expected = LabelEncoder(DESED_CLASSES).strong(plan.events, 25, 0.08)
    assert torch.equal(batch.frames[0], torch.from_numpy(expected))
    assert batch.frames[0].sum() > 0


def test_a_resumed_run_sees_the_same_batches_and_ranks_see_others(tiny_corpus):
    corpus = Corpus(tiny_corpus)
    whole, resumed, other = dataset(corpus), dataset(corpus, first=2), dataset(corpus, rank=1, world_size=2)
    for a, b in zip(flat(whole[2]), flat(resumed[0]), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(flat(whole[2])[0], flat(other[2])[0])
    with pytest.raises(IndexError):
        whole[4]


def test_without_rooms_mixtures_are_dry(tiny_corpus, tmp_path, caplog):
    (tmp_path / "audio").symlink_to(tiny_corpus / "audio")
    mixer = Corpus(tmp_path).mixer(MixingConfig(n_events=(1, 2)), n_sources=2, seconds=1.0, seed=0)
    assert mixer.pack([mixer.plan(0)]).unpack().rirs.shape[-1] == 1
    assert "mixtures have no reverberation" in caplog.text


def test_fixed_soundscapes_are_their_own_only_source(tiny_corpus):
    corpus = Corpus(tiny_corpus)
    steps = StepDataset(
        first_step=0,
        last_step=1,
        sizes=lambda step: BatchSizes(2, 0, 0),
        encoder=corpus.encoder,
        output_frames=lambda n_samples: (n_samples // 1280, 0.08),
        strong_clips=corpus.stream("synthetic", 1, 10.0),
    )
    strong = steps[0].unpack().strong
    mixed = ops.reverb_mix_reference(*strong[:4])
    assert strong.labels.tolist() == [[-1], [-1]] and strong.frames.shape == (2, 125, 10)
    for k in range(2):
        clip, samples = steps.strong_clips.read(k)
        assert np.abs(mixed.mixture[k].numpy() - samples).max() < 1e-6
        assert strong.frames[k].any() == bool(clip.events)


def test_workers_change_nothing(tiny_corpus):
    steps = dataset(Corpus(tiny_corpus))
    loaded = DataLoader(steps, batch_size=None, num_workers=1)
    for alone, batch in zip((steps[k] for k in range(4)), loaded, strict=True):
        assert type(batch) is type(alone) and batch.mixtures.sources == alone.mixtures.sources
        assert all(torch.equal(a, b) for a, b in zip(flat(batch), flat(alone), strict=True))


def test_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="is not a folder; expected one in DESED's layout"):
        Corpus(tmp_path / "absent")
