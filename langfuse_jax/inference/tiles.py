"""Fusing an image tile by tile, with the memory of one, by a network that looks at a neighbourhood alone."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float32

from langfuse_jax.errors import UserError
from langfuse_jax.images.canvas import Size, place
from langfuse_jax.models.student import REACH, TILE_MULTIPLE

Gray = Float32[np.ndarray, "h w"]


def canvas_side(tile: int) -> int:
    """Pixels a side of the canvas on which a tile is fused, its surroundings with it.

    Raises UserError for a tile that is no multiple of 16.

    >>> canvas_side(512)
    736
    """
    if tile < TILE_MULTIPLE or tile % TILE_MULTIPLE:
        raise UserError(f"tile: {tile} pixels; give a multiple of {TILE_MULTIPLE}")
    return tile + 2 * REACH


def fuse_tiles(program: Callable, visible: Gray, infrared: Gray, tile: int) -> Gray:
    """The fused image, in [0, 1], by `program`: `Fuser.program` of a student for a canvas of `canvas_side(tile)`.

    It is exactly what the whole image would give, but for rounding: each tile is fused with all that it depends on.

    Example::

        program = Fuser.load(model="student").program((canvas_side(512),) * 2, 1)
        fused = fuse_tiles(program, visible, infrared, 512)
    """
    canvas = (canvas_side(tile),) * 2
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
