"""The libraries that read and write the files of annotation programs; they are optional."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from task_aware.base.errors import TaskAwareError


def library(name: str) -> Any:
    """Imports a library of the extra `import`. Raises TaskAwareError if it is not there."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)
    except ImportError as error:
        raise TaskAwareError(
            f"{name.partition('.')[0]}, which reads and writes such files, cannot be imported ({error}); run "
            "`pip install '.[import]'` in the checkout"
        ) from error
