"""Mixers of the tests, and what is asked of a mixture."""

from types import SimpleNamespace

import numpy as np

from task_aware.data import DynamicMixer, LabelEncoder, MixingConfig, Soundbank

LABELS = ("Cat", "Dog", "Frying", "Speech")


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
