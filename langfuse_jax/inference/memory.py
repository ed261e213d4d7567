"""How much memory fusing takes, known before it starts."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jax

from langfuse_jax.errors import UserError
from langfuse_jax.images.canvas import Size
from langfuse_jax.inference.tiles import canvas_of
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.steered import SteeredNet

# Bytes a pixel of what a program holds beside its arguments, by XLA's plan for CPUs: at most, over sizes and batches.
_PROGRAM_BYTES = {SteeredNet: 80, FusionNet: 600}
_ARRAY_BYTES = 56  # a pixel: both sources as they are decoded and as floats, the fused image, and its colours
_WAITING_BYTES = 20  # of each pair in a queue
_BASE = 500 * 2**20  # Python, JAX, and the programs themselves
_ADVISED_TILE = 1024
_SHARED_PIXELS = 2**20  # of a batch that another one is computed beside
_GIB = 2**30
_CGROUPS = (  # limit and use, of version 2 and of version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def batches_at_once(pixels: int) -> int:
    """How many batches of so many pixels a stream has on the device.

    One of them leaves cores of a CPU idle, and an accelerator between two. A large one takes a CPU's memory instead.

    >>> batches_at_once(480 * 640)
    2
    """
    return 1 if pixels > _SHARED_PIXELS and jax.default_backend() == "cpu" else 2


def memory_needed(
    net: SteeredNet | FusionNet, size: Size, batch: int = 1, *, tile: int | None = None, waiting: int = 0
) -> int:
    """Bytes that fusing `batch` images of `size` at a time takes at most on a CPU, the process itself included.

    `waiting` more pairs are read, or written, beside it; then there may be a second batch, see `batches_at_once`.

    >>> whole, tiled = (memory_needed(SteeredNet(96), (4000, 6000), tile=tile) for tile in (None, 1024))
    >>> tiled < 2 * 2**30 < whole
    True
    """
    pixels = size[0] * size[1]
    computed = batch * pixels if tile is None else math.prod(canvas_of(size, tile))
    if waiting:
        batch, computed = (count * batches_at_once(batch * pixels) for count in (batch, computed))
    arrays = _ARRAY_BYTES * batch + _WAITING_BYTES * waiting
    return _BASE + arrays * pixels + _PROGRAM_BYTES[type(net)] * computed


def check_memory(
    net: SteeredNet | FusionNet,
    size: Size,
    batch: int = 1,
    *,
    tile: int | None = None,
    waiting: int = 0,
    may_tile: bool = True,
) -> None:
    """Raises UserError, with the remedy, where a CPU has too little free memory to fuse images of `size`.

    Where the free memory is not known, and on accelerators, whose memory is their own, nothing is checked.
    """
    free, needed = _free_memory(), memory_needed(net, size, batch, tile=tile, waiting=waiting)
    if free is None or needed <= free or jax.default_backend() != "cpu":
        return
    remedies = ["smaller images"]
    smaller = _ADVISED_TILE if tile is None else min(tile // 2 // 16 * 16, _ADVISED_TILE)
    can_tile = may_tile and isinstance(net, SteeredNet) and smaller >= 16
    if can_tile and memory_needed(net, size, tile=smaller) <= free:
        remedies.insert(0, f"--tile {smaller}")
    if batch > 1 and memory_needed(net, size, waiting=waiting) <= free:
        remedies.insert(0, "a lower --batch-size")
    raise UserError(
        f"{batch} x {size[1]}x{size[0]} pixels take about {needed / _GIB:.1f} GiB of memory, and {free / _GIB:.1f} are "
        f"free; use {' or '.join(remedies)}"
    )


@contextmanager
def device_errors() -> Iterator[None]:
    """Raises UserError where a device runs out of memory in the block."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            "the device is out of memory; lower --batch-size, fuse in tiles (--tile), or make the images smaller"
        ) from error


def _free_memory() -> int | None:
    """Bytes that a process can use without swapping, by Linux: of the machine, or of the container."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    for most, used in _CGROUPS:
        with suppress(OSError, ValueError):  # "max" is no limit
            free.append(int(Path(most).read_text()) - int(Path(used).read_text()))
    return max(0, min(free)) if free else None
