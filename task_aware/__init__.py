"""Task-aware sound separation: a separator trained through a frozen sound event detector.

Cornell et al., "Task-Aware Separation for the DCASE 2020 Task 4 Sound Event Detection and Separation Challenge".
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

# A command (`python -m task_aware.train`, `task-aware train`) is set up before torch loads OpenMP: its idle threads
# sleep instead of spinning, which made training several times slower where other programs share the cores.
if os.path.basename(sys.argv[0] if sys.argv else "") in ("-m", "task-aware"):
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__all__ = ["LiveDetector", "Predictor", "Separator", "load_detector", "ops"]

if TYPE_CHECKING:
    from task_aware import ops
    from task_aware.live import LiveDetector
    from task_aware.models.detector import load_detector
    from task_aware.models.system import Separator
    from task_aware.predict import Predictor


def __getattr__(name: str) -> Any:
    """Imports what is asked for only then: `ops` alone needs neither Lightning nor safetensors."""
    if name == "ops":
        import task_aware.ops

        return task_aware.ops
    if name == "load_detector":
        from task_aware.models.detector import load_detector

        return load_detector
    if name == "Separator":
        from task_aware.models.system import Separator

        return Separator
    if name == "LiveDetector":
        from task_aware.live import LiveDetector

        return LiveDetector
    if name == "Predictor":
        from task_aware.predict import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
