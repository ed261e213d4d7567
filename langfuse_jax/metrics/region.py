"""The true pixels of images that share a padded canvas.

Everywhere in this package `sizes` is None where images fill their canvas, or (b, 2) int32 true heights and widths of
images in its upper left corner. Maps that lose a border get `shrink(sizes, border)`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

Sizes = Int[Array, "b 2"] | None
Images = Num[Array, "b h w"]
Maps = Float[Array, "b h w"]
Scores = Float[Array, " b"]


def gray(sizes: Sizes, *images: Images) -> tuple[Maps, ...]:
    """The images as floats (integers in JAX's default float), zero outside their true size."""
    dtype = jnp.result_type(*images)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float)
    return tuple(blank(x.astype(dtype), sizes) for x in images)


def inside(maps: Images, sizes: Sizes) -> Bool[Array, "b h w"]:
    """True where a pixel belongs to its image."""
    if sizes is None:
        return jnp.ones(maps.shape, bool)
    rows, columns = (jnp.arange(n) < sizes[:, k, None] for k, n in enumerate(maps.shape[1:]))
    return rows[:, :, None] & columns[:, None, :]


def blank(maps: Images, sizes: Sizes) -> Images:
    """Zero outside, whatever was there (NaN too)."""
    return maps if sizes is None else jnp.where(inside(maps, sizes), maps, 0)


def replicate(maps: Images, sizes: Sizes) -> Images:
    """The last true row and column repeated outside."""
    if sizes is None:
        return maps
    rows, columns = (jnp.minimum(jnp.arange(n), sizes[:, k, None] - 1) for k, n in enumerate(maps.shape[1:]))
    maps = jnp.take_along_axis(maps, rows[:, :, None], axis=1)
    return jnp.take_along_axis(maps, columns[:, None, :], axis=2)


def padded(maps: Images, sizes: Sizes, border: int) -> Num[Array, "b hh ww"]:
    """`border` more pixels on each side of the true image, repeating its edge."""
    widths = ((0, 0), (border, border), (border, border))
    if sizes is None:
        return jnp.pad(maps, widths, mode="edge")
    return replicate(jnp.pad(maps, widths, mode="edge"), sizes + border)


def mirrored(maps: Images, sizes: Sizes) -> Num[Array, "b hh ww"]:
    """One more pixel on each side of the true image, mirrored about its edge pixels."""
    maps = jnp.pad(maps, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    if sizes is None:
        return maps
    for axis in (1, 2):
        at = jnp.arange(maps.shape[axis])
        edge = sizes[:, axis - 1, None]
        index = jnp.where(at > edge, edge - 1, at)
        maps = jnp.take_along_axis(maps, index[:, :, None] if axis == 1 else index[:, None, :], axis=axis)
    return maps


def shrink(sizes: Sizes, border: int) -> Sizes:
    """The sizes of maps that lack `border` rows and columns, never below 0."""
    return None if sizes is None else jnp.maximum(sizes - border, 0)


def halve(sizes: Sizes) -> Sizes:
    """The sizes of every second row and column, beginning with the first."""
    return None if sizes is None else (sizes + 1) // 2


def pixels(maps: Images, sizes: Sizes) -> Scores:
    """How many true pixels each map has, as floats."""
    if sizes is None:
        return jnp.full(maps.shape[0], maps.shape[1] * maps.shape[2], jnp.result_type(maps, jnp.float32))
    return jnp.prod(sizes.astype(jnp.result_type(maps, jnp.float32)), axis=1)


def total(maps: Maps, sizes: Sizes) -> Scores:
    """The sum over true pixels."""
    # A product and not a sum along rows: XLA fuses what makes the maps into a sum, filters and all, many times over.
    ones = jnp.ones(maps.shape[2], maps.dtype)
    return jnp.sum(jnp.matmul(blank(maps, sizes), ones, precision="highest"), axis=1)


def mean(maps: Maps, sizes: Sizes) -> Scores:
    """The mean over true pixels; 0 where there is none."""
    return total(maps, sizes) / jnp.maximum(pixels(maps, sizes), 1)


def centred(maps: Maps, sizes: Sizes) -> Maps:
    """The maps less their means, zero outside; exactly zero for a constant one."""
    # The corner first: what is left of a constant is exactly 0, and the mean of the rest is small.
    rest = maps - maps[:, :1, :1]
    return blank(rest - mean(rest, sizes)[:, None, None], sizes)


def ratio(numerator: Float[Array, "*any"], denominator: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """numerator / denominator, and 0 where the denominator is 0."""
    return jnp.where(denominator == 0, 0, numerator / jnp.where(denominator == 0, 1, denominator))
