"""Cases that fail on purpose, each in another way, to see that it is reported."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random


def is_sentence(error: BaseException) -> bool:
    return isinstance(error, ValueError)


def prepare(folder: Path) -> Callable[[Random, Path], None]:
    def case(random: Random, own: Path) -> None:
        number = int(own.name.rpartition("_")[2])
        if number == 1:
            os._exit(3)
        elif number == 2:
            time.sleep(60)
        elif number == 3:
            raise KeyError("what")
        elif number == 4:
            bytearray(3 << 30)
        elif number == 5:
            raise ValueError("one sentence")

    return case
