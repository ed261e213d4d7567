"""Work in threads beside the device."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Job = TypeVar("Job")


def default_threads() -> int:
    """One for each core that this process may use, at most 16."""
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@contextmanager
def pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A thread pool that drops what has not begun when the block ends by an error."""
    workers = ThreadPoolExecutor(threads)
    try:
        yield workers
    finally:
        workers.shutdown(cancel_futures=True)


def ahead(
    workers: ThreadPoolExecutor, function: Callable, jobs: Iterable[Job], depth: int
) -> Iterator[tuple[Job, Future]]:
    """(job, future of function(job)) in the order of the jobs, with `depth` of them begun ahead of time.

    >>> with pool(2) as workers:
    ...     [(job, future.result()) for job, future in ahead(workers, abs, [-1, -2], depth=1)]
    [(-1, 1), (-2, 2)]
    """
    begun: deque[tuple[Job, Future]] = deque()
    for job in jobs:
        begun.append((job, workers.submit(function, job)))
        if len(begun) > depth:
            yield begun.popleft()
    yield from begun
