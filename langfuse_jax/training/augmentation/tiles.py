"""Bilinear samples of an image as matrix products, for devices on which picking single numbers is slow.

The samples are taken in square tiles of the output. What a tile needs of the image is a small block, so that two
products pick the blocks, a third weighs their rows and a sum weighs their columns: nothing is gathered, and the
gradient is products too.
"""

from functools import partial

import jax.numpy as jnp
from jaxtyping import Array, Float

_SIDE = 16  # pixels of a tile's side; tiles of 8 and 32 take more arithmetic
_MULTIPLE = 8  # to which blocks are rounded up, the size of a TPU's registers
_product = partial(jnp.einsum, precision="highest")


def sample_in_tiles(
    image: Float[Array, "h w c"],
    y: Float[Array, "n size size"],
    x: Float[Array, "n size size"],
    *,
    step: float,
    slopes: tuple[float, float, float, float],
) -> Float[Array, "n size size c"]:
    """The image at (y, x), as a gather and bilinear weights would have it.

    Args:
        image: (h, w, c).
        y, x: places in pixels, within [0, h - 1] and [0, w - 1], that are affine in the output's row and column, or
            such a map cut off at the borders.
        step: the most pixels of the image that a pixel of the output is wide.
        slopes: the most that, in `step`, y changes by the row and by the column of the output, and x by each.

    >>> image, places = jnp.arange(12.0).reshape(3, 4, 1), jnp.array([[[0.0, 1.5], [2.0, 0.25]]])
    >>> sample_in_tiles(image, places, places, step=1.0, slopes=(2.0, 2.0, 2.0, 2.0))[0, :, :, 0].round(5).tolist()
    [[0.0, 7.5], [10.0, 1.25]]
    """
    (h, w, _), size = image.shape, y.shape[1]
    y_by_row, y_by_column, x_by_row, x_by_column = slopes
    tiles = -(-size // _SIDE)
    # All tiles of a row take the same rows of the image.
    rows = _extent(step * ((_SIDE - 1) * y_by_row + (size - 1) * y_by_column), h)
    columns = _extent(step * (_SIDE - 1) * (x_by_row + x_by_column), w)
    y, x = (_in_tiles(places, tiles) for places in (y, x))  # (n, tile's row, tile's column, pixel)
    top = jnp.floor(y.min((2, 3)))
    left = jnp.floor(x.min(3))

    picked_rows = _weights(top[..., None] + jnp.arange(rows), h)
    bands = _product("nrkh,hwc->cnrkw", picked_rows, image)
    picked_columns = _weights(left[..., None] + jnp.arange(columns), w)
    blocks = _product("nrtmw,cnrkw->cnrtmk", picked_columns, bands)
    by_row = _weights(y - top[:, :, None, None], rows)
    by_column = _weights(x - left[..., None], columns)
    weighed = _product("nrtpk,cnrtmk->cnrtmp", by_row, blocks)
    samples = (weighed * by_column.swapaxes(-1, -2)).sum(-2)
    samples = samples.reshape(*samples.shape[:4], _SIDE, _SIDE).swapaxes(3, 4)
    return jnp.moveaxis(samples.reshape(*samples.shape[:2], tiles * _SIDE, tiles * _SIDE), 0, -1)[:, :size, :size]


def _extent(reach: float, most: int) -> int:
    """Pixels of the image that samples within `reach` of each other need: both neighbours of the first and the last."""
    needed = int(reach) + 3
    return min(-(-needed // _MULTIPLE) * _MULTIPLE, most)


def _in_tiles(places: Float[Array, "n size size"], tiles: int) -> Float[Array, "n r t p"]:
    """The pixels of each tile in a row; those beyond the image repeat its last."""
    beyond = tiles * _SIDE - places.shape[1]
    places = jnp.pad(places, ((0, 0), (0, beyond), (0, beyond)), mode="edge")
    parts = places.reshape(-1, tiles, _SIDE, tiles, _SIDE).swapaxes(2, 3)
    return parts.reshape(*parts.shape[:3], _SIDE * _SIDE)


def _weights(places: Float[Array, "*any"], count: int) -> Float[Array, "*any count"]:
    """Bilinear weights of `count` pixels at each place: one-hot at whole ones, 0 where both neighbours are outside."""
    return jnp.maximum(0.0, 1.0 - jnp.abs(places[..., None] - jnp.arange(count)))
