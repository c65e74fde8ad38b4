"""Detects events in batches of recordings, as in a data pipeline: a `Predictor` maps a batch to its events.

python examples/batches.py FOLDER

Here a process pool of the standard library shares the batches. With Ray Data, use the same class like this:

    ray.data.from_items([{"path": str(path)} for path in paths]).map_batches(
        Predictor, fn_constructor_args=[checkpoint], batch_size=16, concurrency=4, num_gpus=1
    )
"""

import sys
from multiprocessing import get_context

import numpy as np

from task_aware import Predictor
from task_aware.inference.recordings import find_recordings
from task_aware.models.opening import BUILTIN_SEPARATOR


def main(folder: str, n_processes: int = 2, batch_size: int = 16) -> None:
    paths = [str(recording.path) for recording in find_recordings([folder])]
    batches = [{"path": np.array(paths[i : i + batch_size])} for i in range(0, len(paths), batch_size)]
    predictor = Predictor(BUILTIN_SEPARATOR, device="cpu")
    with get_context("spawn").Pool(min(n_processes, len(batches))) as pool:
        for batch in pool.imap(predictor, batches):
            for path, events, error in zip(batch["path"], batch["events"], batch["error"], strict=True):
                print(path, error or ", ".join(sorted({event["event_label"] for event in events})), sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
