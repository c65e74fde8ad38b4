"""Mixtures of held-out events, to score on: clips of one event each become soundscapes of several."""

from __future__ import annotations

import warnings
from pathlib import Path

from tqdm import tqdm

from task_aware.data.audio import write_audio
from task_aware.data.desed import split_paths, write_events
from task_aware.data.labels import LabelEncoder
from task_aware.data.mixing import DynamicMixer
from task_aware.data.mixing_config import MixingConfig
from task_aware.data.soundbank import Soundbank
from task_aware.data.soundscapes import SAMPLE_RATE, soundscapes
from task_aware.importing.writing import HELD

#: Most mixtures, and most for each held-out event.
MIXTURES, FOR_EACH = 200, 10

#: As in the recipes `builtin` and `detector_builtin`, apart from the level.
_LEVELS = MixingConfig(
    n_events=(1, 4), foreground_db=(-12.0, 0.0), background_db=(-25.0, -5.0), gain_db=(-8.0, 8.0), reverb=False
)


def average_level() -> float:
    """Mean level of the events of a mixture, relative to the reference level, dB."""
    return sum(_LEVELS.foreground_db) / 2


def write_mixtures(root: Path, reference_db: float, *, seconds: float = 10.0, progress: bool = True) -> int:
    """Writes mixtures of the held-out events as the validation clips of a data set; returns how many."""
    bank = Soundbank(root / HELD, sample_rate=SAMPLE_RATE, max_broken=1.0)
    try:
        encoder = LabelEncoder(bank.labels)
        config = MixingConfig(**{**vars(_LEVELS), "reference_db": reference_db})
        config.n_events = (1, min(4, len(bank.labels)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that there are no backgrounds is in the report
            mixer = DynamicMixer(
                bank, None, encoder, config, n_sources=4, clip_seconds=seconds, sample_rate=SAMPLE_RATE, seed=0
            )
        count = min(MIXTURES, FOR_EACH * sum(map(len, bank.foreground.values())))
        table, folder = split_paths(root, "validation")
        labelled = {}
        made = enumerate(soundscapes(mixer, count, bank.labels))
        for index, soundscape in tqdm(made, total=count, desc="mixing held-out clips", disable=not progress):
            name = f"mixture_{index:05d}.flac"
            write_audio(folder / name, soundscape.mixture, SAMPLE_RATE)
            labelled[name] = soundscape.events
        write_events(table, labelled)
        return count
    finally:
        bank.drop_cache()
