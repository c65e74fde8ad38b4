"""Recordings, labels and mixtures as arrays and files, independent of any model."""

from task_aware.data.audio import read_audio, write_audio
from task_aware.data.desed import SPLITS, Clip, Split, read_events, read_split
from task_aware.data.labels import DESED_CLASSES, Event, LabelEncoder
from task_aware.data.mixing import DynamicMixer, MixingConfig, MixturePlan
from task_aware.data.packing import DryMixtures, PackedMixtures
from task_aware.data.rirs import RirBank
from task_aware.data.soundbank import Soundbank

__all__ = [
    "DESED_CLASSES",
    "SPLITS",
    "Clip",
    "DryMixtures",
    "DynamicMixer",
    "Event",
    "LabelEncoder",
    "MixingConfig",
    "MixturePlan",
    "PackedMixtures",
    "RirBank",
    "Soundbank",
    "Split",
    "read_audio",
    "read_events",
    "read_split",
    "write_audio",
]
