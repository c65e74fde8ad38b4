"""Scores of detected events and of separated sources."""

from .source_scores import LabelAccuracy, SourceScores, capi_sdri, label_accuracy

__all__ = ["LabelAccuracy", "SourceScores", "capi_sdri", "label_accuracy"]
