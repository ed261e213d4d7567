"""Statistics of a whole pair, by which a network adjusts itself: read at a few thousand places, whatever the size."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from langfuse_jax.models.layers import Sizes

PLACES = 64  # rows and columns of them
QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
PER_SOURCE = len(QUANTILES) + 2


def pair_statistics(
    visible: Float[Array, "b h w 1"], infrared: Float[Array, "b h w 1"], sizes: Sizes = None
) -> Float[Array, "b 18"]:
    """Of each source: QUANTILES, the mean gradient, and the noise level (the median of a second difference).

    Images in [0, 1], on canvases with `sizes`. Values are read at PLACES x PLACES places and their neighbours.

    >>> flat = jnp.full((1, 40, 50, 1), 0.25)
    >>> pair_statistics(flat, flat)[0, :9].tolist()
    [0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.0, 0.0]
    """
    batch, height, width = visible.shape[:3]
    inside = jnp.broadcast_to(jnp.array([height, width]), (batch, 2)) if sizes is None else sizes
    return jnp.concatenate([_of_source(source[..., 0], inside) for source in (visible, infrared)], axis=1)


def _of_source(source: Float[Array, "b h w"], sizes: Int[Array, "b 2"]) -> Float[Array, "b 9"]:
    steps = (2 * jnp.arange(PLACES) + 1)[None, :, None]
    # Places at least a pixel away from every edge.
    inner = 1 + steps * (sizes[:, None, :] - 2) // (2 * PLACES)  # (b, places, 2)
    rows, columns = inner[:, :, 0], inner[:, :, 1]
    samples = jnp.arange(source.shape[0])[:, None, None]

    def read(down: int, right: int) -> Float[Array, "b p p"]:
        return source[samples, (rows + down)[:, :, None], (columns + right)[:, None, :]]

    here, above, below, left, right = (read(*offset) for offset in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)))
    count = PLACES * PLACES
    ordered = jnp.sort(here.reshape(-1, count), axis=1)
    quantiles = ordered[:, jnp.array([round(q * (count - 1)) for q in QUANTILES])]
    gradient = (jnp.abs(below - here) + jnp.abs(right - here)).mean((1, 2)) / 2
    # A difference that smooth surfaces do not have: that of differences, in the manner of Immerkaer (1996).
    second = (
        (read(-1, -1) - 2 * above + read(-1, 1))
        - 2 * (left - 2 * here + right)
        + (read(1, -1) - 2 * below + read(1, 1))
    )
    noise = jnp.median(jnp.abs(second).reshape(-1, count), axis=1) / (6 * 0.6745)
    return jnp.concatenate([quantiles, gradient[:, None], noise[:, None]], axis=1)
