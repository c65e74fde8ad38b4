"""Task-aware sound separation: a separator trained through a frozen sound event detector.

Cornell et al., "Task-Aware Separation for the DCASE 2020 Task 4 Sound Event Detection and Separation Challenge".
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import lazy_loader

from task_aware.base.threads import choose_waiting
from task_aware.base.version import __version__ as __version__

# For commands (`python -m task_aware.train`, `task-aware train`), and before torch loads OpenMP.
if os.path.basename(sys.argv[0] if sys.argv else "") in ("-m", "task-aware"):
    choose_waiting(os.environ)

if TYPE_CHECKING:
    from task_aware import ops as ops
    from task_aware.inference.live import LiveDetector as LiveDetector
    from task_aware.inference.predictor import Predictor as Predictor
    from task_aware.models.crnn import load_detector as load_detector
    from task_aware.models.system import Separator as Separator

# Names are imported on first use, so that `task_aware.ops` alone imports neither Lightning nor safetensors.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["ops"],
    submod_attrs={
        "inference.live": ["LiveDetector"],
        "models.crnn": ["load_detector"],
        "models.system": ["Separator"],
        "inference.predictor": ["Predictor"],
    },
)
