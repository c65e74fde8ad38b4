"""Computes pieces of work at once, each in one of a few threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Found = TypeVar("Found")


def in_order(work: Callable[[Item], Found], items: Iterable[Item], workers: int) -> Iterator[Found]:
    """Yields what `work` returns for each item, in their order, computed by `workers` threads.

    The workers share torch's threads evenly: where operators are small, two threads with an item each do more than two
    with half of one. Up to two items for each worker are computed ahead.
    """
    if workers == 1:
        yield from map(work, items)
        return
    threads = torch.get_num_threads()
    running: deque[Future[Found]] = deque()
    pool = ThreadPoolExecutor(workers, "networks", torch.set_num_threads, (max(1, threads // workers),))
    try:
        for item in items:
            running.append(pool.submit(work, item))
            while running and (len(running) > 2 * workers or running[0].done()):
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
