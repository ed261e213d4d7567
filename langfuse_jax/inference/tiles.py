"""Fusing an image tile by tile, with the memory of one, by a network that looks at a neighbourhood alone."""

import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float32

from langfuse_jax.errors import UserError
from langfuse_jax.images.canvas import Size, place
from langfuse_jax.models.steered import REACH, TILE_MULTIPLE

_MOST = 16384  # pixels a side of a tile

Gray = Float32[np.ndarray, "h w"]


def canvas_side(tile: int) -> int:
    """Pixels a side of the canvas on which a tile is fused, its surroundings with it.

    Raises UserError for a tile that is no multiple of 16.

    >>> canvas_side(512)
    768
    """
    if not TILE_MULTIPLE <= tile <= _MOST or tile % TILE_MULTIPLE:
        raise UserError(f"--tile {tile}: give a multiple of {TILE_MULTIPLE} up to {_MOST}, such as 1024")
    return tile + 2 * REACH


def canvas_of(size: Size, tile: int) -> Size:
    """The canvas on which the tiles of an image of `size` are fused: no larger than the image requires.

    >>> canvas_of((400, 5000), 512)
    (400, 768)
    """
    whole = _fitted(size[0]), _fitted(size[1])
    return min(canvas_side(tile), whole[0]), min(canvas_side(tile), whole[1])


def _fitted(side: int) -> int:
    """`side` rounded up to what the network's pyramid halves."""
    return -(-side // TILE_MULTIPLE) * TILE_MULTIPLE


def tile_count(size: Size, tile: int) -> int:
    """How many tiles an image of `size` takes.

    >>> tile_count((1025, 512), 512)
    3
    """
    return math.prod(-(-side // tile) for side in size)


def fuse_tiles(program: Callable, visible: Gray, infrared: Gray, tile: int) -> Gray:
    """The fused image, in [0, 1]; `program(visible, infrared, sizes)` fuses a canvas of `canvas_side(tile)`.

    It is exactly what the whole image would give, but for rounding, where a fused pixel depends on nothing beyond
    REACH: the statistics of the whole image are the program's own.

    Example::

        statistics = pair_statistics(visible[None, ..., None], infrared[None, ..., None])
        fused = fuse_tiles(partial(apply, statistics=statistics), visible, infrared, 512)
    """
    canvas = canvas_of(visible.shape, tile)
    fused = np.empty(visible.shape, np.float32)
    for inside, around in _tiles(visible.shape, tile):
        crop = visible[around], infrared[around]
        sizes = np.array([crop[0].shape], np.int32)
        result = np.asarray(program(*(place([image], canvas) for image in crop), sizes))[0, ..., 0]
        start = [i.start - a.start for i, a in zip(inside, around, strict=True)]
        fused[inside] = result[tuple(slice(s, s + i.stop - i.start) for s, i in zip(start, inside, strict=True))]
    return fused


def _tiles(size: Size, tile: int) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Each tile of an image, and it with its surroundings, as slices of rows and columns."""
    for corner in np.ndindex(*(-(-side // tile) for side in size)):
        starts = [tile * place for place in corner]
        inside = [slice(start, min(start + tile, side)) for start, side in zip(starts, size, strict=True)]
        around = [
            slice(max(0, start - REACH), min(start + tile + REACH, side))
            for start, side in zip(starts, size, strict=True)
        ]
        yield (inside[0], inside[1]), (around[0], around[1])
