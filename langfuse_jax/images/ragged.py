"""Ragged images in batches through the programs of a few canvases: read ahead in threads, in bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from langfuse_jax.errors import UserError
from langfuse_jax.images.canvas import MAX_BATCH, Size, default_batch, smallest
from langfuse_jax.runtime.threads import ahead, pool

Job = TypeVar("Job")
Item = TypeVar("Item")
Output = TypeVar("Output")

_QUEUED = 3  # batches on the device: two that may run at once, and one that waits so that the device need not


@dataclass(frozen=True)
class Batch(Generic[Item, Output]):
    """Items on one canvas and what its program makes of them, which may have yet to be computed.

    A batch that is not full at the end is filled up by copies of its last item: `size` counts them, `items` has none.
    """

    canvas: Size
    size: int
    items: list[Item]
    output: Output


def ragged_batches(
    jobs: Iterable[Job],
    read: Callable[[Job], Sequence[Item] | None],
    size_of: Callable[[Item], Size],
    program: Callable[[Size, int], Callable[[list[Item]], Output]],
    *,
    canvases: Mapping[Size, int],
    batch_size: int | None = None,
    threads: int,
    failed: Callable[[Job, UserError], None],
) -> Generator[Batch[Item, Output], None, None]:
    """Batches of the items that `read` makes of each job: in the order of the jobs as long as they share a canvas.

    There are at no time more in memory than about four batches of each canvas, and two jobs for each thread.

    Args:
        jobs: taken as they are needed; there may be no end of them.
        read: called in threads. None ends the jobs; UserErrors go to `failed`, and the others go on.
        size_of: the size of an item.
        program: makes the program for a canvas and a batch size, in a thread beside the others.
        canvases: the planned ones, and how many items are expected on each: where there are any, its program is made
            at once. More canvases are added for items that fit on none.
        batch_size: items in a batch; by default `canvas.default_batch`.
        threads: that read.
        failed: gets the jobs that could not be read.

    Example::

        batches = ragged_batches(paths, read, size_of, program, canvases={(480, 640): 9}, threads=2, failed=print)
        with closing(batches):
            results = [(batch.items, np.asarray(batch.output)) for batch in batches]
    """
    with pool(threads) as readers, pool(len(canvases) + 1) as compilers:
        opened: dict[Size, tuple[int, Future[Callable[[list[Item]], Output]]]] = {}

        def open_canvas(canvas: Size, expected: int) -> None:
            size = batch_size or default_batch(canvas, expected)
            opened[canvas] = size, compilers.submit(program, canvas, size)

        def gathered() -> Iterator[tuple[Size, list[Item]]]:
            """(canvas, items) whenever a canvas has a batch of items, and in the end what is left."""
            waiting: dict[Size, list[Item]] = {}
            for item in _decoded(ahead(readers, read, jobs, 2 * threads), failed):
                canvas = smallest({*canvases, *opened}, size_of(item))
                if canvas not in opened:
                    open_canvas(canvas, MAX_BATCH)
                waiting.setdefault(canvas, []).append(item)
                if len(waiting[canvas]) == opened[canvas][0]:
                    yield canvas, waiting.pop(canvas)
            yield from waiting.items()

        for canvas, expected in canvases.items():
            if expected:
                open_canvas(canvas, expected)
        running: deque[Batch[Item, Output]] = deque()
        for canvas, items in gathered():
            size, compiled = opened[canvas]
            copies = [items[-1]] * (size - len(items))
            running.append(Batch(canvas, size, items, compiled.result()(items + copies)))
            if len(running) == _QUEUED:
                yield running.popleft()
        while running:
            yield running.popleft()


def _decoded(
    reading: Iterator[tuple[Job, Future[Sequence[Item] | None]]], failed: Callable[[Job, UserError], None]
) -> Iterator[Item]:
    """The items of the jobs that could be read."""
    for job, future in reading:
        try:
            items = future.result()
        except UserError as error:
            failed(job, error)
            continue
        if items is None:
            return
        yield from items
