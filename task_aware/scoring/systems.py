"""The systems that are scored, by their names in metrics.json."""

from __future__ import annotations

DETECTOR_ONLY = "detector_only"
SEPARATED = "separated"
SOURCE_ONLY = "source_only"
