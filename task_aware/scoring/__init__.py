"""Scores of detected events and of separated sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from task_aware.scoring.source_scores import LabelAccuracy as LabelAccuracy
    from task_aware.scoring.source_scores import SourceScores as SourceScores
    from task_aware.scoring.source_scores import capi_sdri as capi_sdri
    from task_aware.scoring.source_scores import label_accuracy as label_accuracy

# Names are imported on first use: the names of the systems are read without NumPy.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"source_scores": ["LabelAccuracy", "SourceScores", "capi_sdri", "label_accuracy"]}
)
