"""Work for several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from profiler.errors import DependencyError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_processes(work: Callable[[Item], Answer], items: Sequence[Item], processes: int) -> Iterator[Answer]:
    """Answers as they come; in this process where one is enough.

    Args:
        work: a function of a module.
        items: begun in their order.
        processes: at most so many.

    Raises:
        DependencyError: a process was ended from outside.
    """
    if processes <= 1 or len(items) <= 1:
        yield from map(work, items)
        return
    # Spawned, not forked: the parent holds threads (progress bars, numba), and a fork would copy their locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(items)), mp_context=context) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            said = "a process was ended from outside, perhaps for its memory: fewer at a time (--jobs) need less"
            raise DependencyError(said) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
