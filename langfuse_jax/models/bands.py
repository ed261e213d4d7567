"""Laplacian bands of maps that may be canvases: halves, doubles and local activity, exact at each sample's edge."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from langfuse_jax.models.layers import Sizes

Map = Float[Array, "b h w c"]
Resized = Float[Array, "b _ _ c"]


def repeat_beyond(x: Map, sizes: Sizes) -> Map:
    """`x` with the last row and column of each sample repeated over the rest of the canvas.

    >>> repeat_beyond(jnp.arange(4.0).reshape(1, 1, 4, 1), jnp.array([[1, 2]]))[0, 0, :, 0].tolist()
    [0.0, 1.0, 1.0, 1.0]
    """
    if sizes is None:
        return x
    for axis in (1, 2):
        end = jnp.expand_dims(sizes[:, axis - 1], (1, 2, 3))
        edge = jnp.take_along_axis(x, end - 1, axis)
        place = jnp.expand_dims(jnp.arange(x.shape[axis]), (0, 2, 3) if axis == 1 else (0, 1, 3))
        x = jnp.where(place < end, x, edge)
    return x


def half(x: Map, sizes: Sizes = None) -> Resized:
    """Half as many rows and columns, with taps 1 3 3 1; edges are repeated. `sizes` are those of the result.

    >>> half(jnp.arange(8.0).reshape(1, 2, 4, 1))[0, :, :, 0].tolist()
    [[2.625, 4.375]]
    """
    for axis in (1, 2):
        padded = _with_edges(x, axis)
        count = x.shape[axis] // 2
        first, second, third, last = (_every_other(padded, axis, start, count) for start in range(4))
        x = 0.125 * (first + last) + 0.375 * (second + third)
    return repeat_beyond(x, sizes)


def double(x: Map, sizes: Sizes = None) -> Resized:
    """Twice as many rows and columns, linearly interpolated; edges are repeated. `sizes` are those of the result.

    >>> double(jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1))[0, 0, :, 0].tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    for axis in (1, 2):
        padded, count = _with_edges(x, axis), x.shape[axis]
        before, after = (_from(padded, axis, start, count) for start in (0, 2))
        pair = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = pair.reshape(*x.shape[:axis], 2 * count, *x.shape[axis + 1 :])
    return repeat_beyond(x, sizes)


def activity(band: Map, sizes: Sizes = None) -> Map:
    """Mean magnitude of a band around each place, with taps 1 4 6 4 1.

    >>> activity(-jnp.ones((1, 8, 8, 1)))[0, 0, 0, 0].item()
    1.0
    """
    x = jnp.abs(band)
    for axis in (1, 2):
        padded, count = _with_edges(x, axis, 2), x.shape[axis]
        far, near, here, near2, far2 = (_from(padded, axis, start, count) for start in range(5))
        x = 0.0625 * (far + far2) + 0.25 * (near + near2) + 0.375 * here
    return repeat_beyond(x, sizes)


def _with_edges(x: Map, axis: int, width: int = 1) -> Resized:
    return jnp.pad(x, [(width, width) if a == axis else (0, 0) for a in range(4)], mode="edge")


def _from(x: Map, axis: int, start: int, count: Any) -> Resized:
    return x[:, start : start + count] if axis == 1 else x[:, :, start : start + count]


# `count` is a number, or symbolic where a network is exported for any size.
def _every_other(x: Map, axis: int, start: int, count: Any) -> Resized:
    places = slice(start, start + 2 * count - 1, 2)
    return x[:, places] if axis == 1 else x[:, :, places]
