"""Recordings, labels and mixtures as arrays and files, independent of any model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from task_aware.data.audio import read_audio as read_audio
    from task_aware.data.audio import write_audio as write_audio
    from task_aware.data.desed import SPLITS as SPLITS
    from task_aware.data.desed import Clip as Clip
    from task_aware.data.desed import Split as Split
    from task_aware.data.desed import read_events as read_events
    from task_aware.data.desed import read_split as read_split
    from task_aware.data.labels import DESED_CLASSES as DESED_CLASSES
    from task_aware.data.labels import Event as Event
    from task_aware.data.labels import LabelEncoder as LabelEncoder
    from task_aware.data.mixing import DynamicMixer as DynamicMixer
    from task_aware.data.mixing import MixturePlan as MixturePlan
    from task_aware.data.mixing_config import MixingConfig as MixingConfig
    from task_aware.data.packing import DryMixtures as DryMixtures
    from task_aware.data.packing import PackedMixtures as PackedMixtures
    from task_aware.data.rirs import RirBank as RirBank
    from task_aware.data.soundbank import Soundbank as Soundbank

# Names are imported on first use: the options of mixing are read without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "audio": ["read_audio", "write_audio"],
        "desed": ["SPLITS", "Clip", "Split", "read_events", "read_split"],
        "labels": ["DESED_CLASSES", "Event", "LabelEncoder"],
        "mixing": ["DynamicMixer", "MixturePlan"],
        "mixing_config": ["MixingConfig"],
        "packing": ["DryMixtures", "PackedMixtures"],
        "rirs": ["RirBank"],
        "soundbank": ["Soundbank"],
    },
)
