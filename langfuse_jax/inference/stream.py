"""Fusing a stream of pairs: decoded and encoded in threads beside the device, a few canvases, bounded memory."""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import jax
import numpy as np

from langfuse_jax.errors import UserError
from langfuse_jax.images.canvas import MAX_BATCH, Size, default_batch, place, smallest
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.runtime.threads import ahead, pool

Job = TypeVar("Job")

# What it takes to make a program ready, as pixels that would be fused in that time. On two CPU cores 2.6 million where
# it has to be compiled, 0.3 where it is loaded; accelerators compile for longer and fuse a hundred times as fast.
_PROGRAM_PIXELS = {"cpu": 1e6}
_PROGRAM_PIXELS_ELSEWHERE = 1e8
_QUEUED = 2  # batches on the device: one that runs, and one that waits so that the device need not


@dataclass
class Work:
    """What a stream has done: images fused on each canvas, their pixels, and the pixels of all canvases computed."""

    images: Counter = field(default_factory=Counter)
    pixels: int = 0
    canvas_pixels: int = 0


def program_pixels() -> float:
    """How many pixels a canvas of its own has to save, to be worth it.

    Example::

        plan(sizes, limit=4, worth=program_pixels())
    """
    return _PROGRAM_PIXELS.get(jax.default_backend(), _PROGRAM_PIXELS_ELSEWHERE)


def fuse_stream(
    fuser: Fuser,
    jobs: Iterable[Job],
    read: Callable[[Job], tuple | None],
    write: Callable[[Job, tuple, np.ndarray], None],
    *,
    canvases: dict[Size, int],
    batch_size: int | None = None,
    threads: int,
    failed: Callable[[Job, UserError], None],
) -> Work:
    """Fuses what `read` makes of each job, (luma, chroma, infrared); `write` gets the job, that, and the fused luma.

    Both run in `threads` threads each; with one, in the order of the jobs as long as they share a canvas. `read` ends
    the stream by None; its UserErrors go to `failed` and the stream goes on, those of `write` end it.

    `canvases` maps the planned ones to how many images are expected on each: where there are any, it is compiled at
    once, beside the others. More canvases are added for images that fit on none. A batch that is not full at the end is
    filled up by copies. There are at no time more in memory than about three batches of each canvas, and a few images
    for each thread.

    Example::

        def write(pair, sources, fused):
            write_png(f"FUSED/{pair.stem}.png", fused)

        pairs, _ = match_pairs("VIS", "IR")
        canvases = {(480, 640): len(pairs)}
        fuse_stream(Fuser.load(), pairs, read_pair, write, canvases=canvases, threads=2, failed=print)
    """
    work = Work()
    with (
        pool(threads) as readers,
        pool(threads) as writers,
        pool(len(canvases) + 1) as compilers,
        _device_errors(),
    ):
        programs = _Programs(fuser, canvases, batch_size, compilers)
        decoded = _decoded(ahead(readers, read, jobs, 2 * threads), failed)
        batches = _batches(decoded, fuser, programs)
        writing: deque[Future] = deque()
        for items, fused in _computed(batches, fuser, programs, work):
            for (job, sources), image in zip(items, fused, strict=False):  # the copies at the end have no item
                if len(writing) > 2 * threads:
                    writing.popleft().result()
                h, w = sources[0].shape
                writing.append(writers.submit(write, job, sources, image[:h, :w, 0]))
        while writing:
            writing.popleft().result()
    return work


class _Programs:
    """The canvases of a stream, and for those in use the batch size and the program, which threads compile."""

    def __init__(self, fuser, canvases, batch_size, pool):
        self._fuser, self._batch_size, self._pool = fuser, batch_size, pool
        self._canvases = dict(canvases)
        self._opened: dict[Size, tuple[int, Future]] = {}
        for canvas, expected in canvases.items():
            if expected:
                self._open(canvas, expected)

    def _open(self, canvas, expected):
        batch = self._batch_size or default_batch(canvas, expected)
        self._opened[canvas] = batch, self._pool.submit(self._fuser.program, canvas, batch)

    def canvas(self, size: Size) -> Size:
        canvas = smallest(self._canvases, size)
        if canvas not in self._opened:
            self._canvases.setdefault(canvas, 0)
            self._open(canvas, MAX_BATCH)
        return canvas

    def batch(self, canvas: Size) -> int:
        return self._opened[canvas][0]

    def program(self, canvas: Size) -> Callable:
        return self._opened[canvas][1].result()


def _decoded(ahead, failed):
    """(job, sources) of those that could be read."""
    for job, future in ahead:
        try:
            sources = future.result()
        except UserError as error:
            failed(job, error)
            continue
        if sources is None:
            return
        yield job, sources


def _batches(decoded, fuser, programs):
    """(canvas, items) whenever a canvas has a batch of items, and in the end what is left."""
    waiting: dict[Size, list] = {}
    for item in decoded:
        canvas = programs.canvas(fuser.extended_size(item[1][0].shape))
        items = waiting.setdefault(canvas, [])
        items.append(item)
        if len(items) == programs.batch(canvas):
            yield canvas, waiting.pop(canvas)
    yield from waiting.items()


def _computed(batches, fuser, programs, work):
    """(items, fused canvases) of each batch; the device has the next one before this one is waited for."""
    running: deque[tuple] = deque()
    for canvas, items in batches:
        copies = [items[-1]] * (programs.batch(canvas) - len(items))
        visible, infrared = ([fuser.extend(item[1][i]) for item in items + copies] for i in (0, 2))
        sizes = np.array([image.shape for image in visible], np.int32)
        running.append((items, programs.program(canvas)(place(visible, canvas), place(infrared, canvas), sizes)))
        work.images[canvas] += len(items)
        work.pixels += sum(item[1][0].size for item in items)
        work.canvas_pixels += len(visible) * canvas[0] * canvas[1]
        if len(running) == _QUEUED:
            items, fused = running.popleft()
            yield items, np.asarray(fused)
    for items, fused in running:
        yield items, np.asarray(fused)


@contextmanager
def _device_errors():
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError("the device is out of memory; lower --batch-size, or make the images smaller") from error
