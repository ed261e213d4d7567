"""Fusing a stream of pairs: decoded and encoded in threads beside the device, a few canvases, bounded memory."""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Float32

from langfuse_jax.errors import UserError
from langfuse_jax.images.canvas import Size, place
from langfuse_jax.images.pairs import Sources
from langfuse_jax.images.ragged import ragged_batches
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.inference.memory import batches_at_once, device_errors
from langfuse_jax.inference.tiles import canvas_of, tile_count
from langfuse_jax.runtime.threads import pool

Job = TypeVar("Job")

# What it takes to make a program ready, as pixels that would be fused in that time. On two CPU cores 2.6 million where
# it has to be compiled, 0.3 where it is loaded; accelerators compile for longer and fuse a hundred times as fast.
_PROGRAM_PIXELS = {"cpu": 1e6}
_PROGRAM_PIXELS_ELSEWHERE = 1e8


@dataclass
class Work:
    """What a stream has done: images fused on each canvas, their pixels, and the pixels of all canvases computed."""

    images: Counter[Size] = field(default_factory=Counter)
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
    read: Callable[[Job], Sources | None],
    write: Callable[[Job, Sources, Float32[np.ndarray, "h w"]], None],
    *,
    canvases: dict[Size, int],
    batch_size: int | None = None,
    threads: int,
    failed: Callable[[Job, UserError], None],
) -> Work:
    """Fuses what `read` makes of each job, (luma, chroma, infrared); `write` gets the job, that, and the fused luma.

    Both run in `threads` threads each; with one, in the order of the jobs as long as they share a canvas. UserErrors of
    `write` end the stream. The rest is as `images.ragged.ragged_batches` has it.

    Example::

        def write(pair, sources, fused):
            write_png(f"FUSED/{pair.stem}.png", fused)

        pairs = match_pairs("VIS", "IR").pairs
        canvases = {(480, 640): len(pairs)}
        fuse_stream(Fuser.load(), pairs, read_pair, write, canvases=canvases, threads=2, failed=print)
    """
    work = Work()

    def items(job: Job) -> list[tuple[Job, Sources]] | None:
        sources = read(job)
        return None if sources is None else [(job, sources)]

    def program(
        canvas: Size, batch: int
    ) -> Callable[[list[tuple[Job, Sources]]], Future[Float32[np.ndarray, "b H W 1"]]]:
        compiled = fuser.program(canvas, batch)

        def run(items: list[tuple[Job, Sources]]) -> Float32[np.ndarray, "b H W 1"]:
            visible = [fuser.extend(luma) for _, (luma, _, _) in items]
            infrared = [fuser.extend(image) for _, (_, _, image) in items]
            sizes = np.array([image.shape for image in visible], np.int32)
            return np.asarray(compiled(place(visible, canvas), place(infrared, canvas), sizes))

        return lambda items: computing.submit(run, items)

    batches = ragged_batches(
        jobs,
        items,
        lambda item: fuser.extended_size(item[1][0].shape),
        program,
        canvases=canvases,
        batch_size=batch_size,
        threads=threads,
        failed=failed,
    )
    largest = max((math.prod(canvas) for canvas, count in canvases.items() if count), default=0)
    with (
        pool(threads) as writers,
        pool(batches_at_once(largest * (batch_size or 1))) as computing,
        device_errors(),
        closing(batches),
    ):
        writing: deque[Future[None]] = deque()
        for batch in batches:
            fused = batch.output.result()
            for (job, sources), image in zip(batch.items, fused, strict=False):  # the copies at the end have no item
                if len(writing) > 2 * threads:
                    writing.popleft().result()
                h, w = sources[0].shape
                writing.append(writers.submit(write, job, sources, image[:h, :w, 0]))
            work.images[batch.canvas] += len(batch.items)
            work.pixels += sum(sources[0].size for _, sources in batch.items)
            work.canvas_pixels += batch.size * batch.canvas[0] * batch.canvas[1]
        while writing:
            writing.popleft().result()
    return work


def fuse_tiled_stream(
    fuser: Fuser,
    jobs: Iterable[Job],
    read: Callable[[Job], Sources],
    write: Callable[[Job, Sources, Float32[np.ndarray, "h w"]], None],
    *,
    tile: int,
    failed: Callable[[Job, UserError], None],
) -> Work:
    """Like `fuse_stream`, one pair after the other and in tiles: it holds one pair and the memory of one tile.

    Example::

        fuse_tiled_stream(Fuser.load(), pairs, read_pair, write, tile=1024, failed=print)
    """
    work = Work()
    for job in jobs:
        try:
            sources = read(job)
        except UserError as error:
            failed(job, error)
            continue
        luma, _, infrared = sources
        with device_errors():
            fused = fuser(luma, infrared, tile=tile)
        write(job, sources, fused)
        canvas = canvas_of(luma.shape, tile)
        work.images[canvas] += 1
        work.pixels += luma.size
        work.canvas_pixels += tile_count(luma.shape, tile) * canvas[0] * canvas[1]
    return work
