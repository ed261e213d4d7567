"""Random affine views of images, in one bilinear resampling, on the device."""

from functools import partial
from math import radians, sin, tan

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from langfuse_jax.training.augmentation.tiles import sample_in_tiles

DEGREES, SHEAR = 5.0, 5.0  # the most that a view is turned and slanted, either way
# What a step along the output's rows and along its columns moves in y, then in x, at most; see `random_affine`.
SLOPES = (1.0, sin(radians(DEGREES)), tan(radians(SHEAR)) + sin(radians(DEGREES)), 1.01)


def random_affine(
    key: PRNGKeyArray,
    count: int,
    *,
    degrees: float = DEGREES,
    translate_y: float = 0.1,
    scale: tuple[float, float] = (1.0, 1.5),
    shear: float = SHEAR,
) -> Float[Array, "n 2 3"]:
    """Matrices from output to input coordinates, (y, x) from -1/2 to 1/2 across the side, for `count` random views.

    Rotation and horizontal shear are uniform in +-degrees and +-shear (degrees), translation in +-translate_y of the
    side (vertical only), enlargement in `scale`: LDFusion's augmentation (arXiv 2402.16267).

    >>> twice = random_affine(jax.random.key(0), 1, degrees=0.0, scale=(2.0, 2.0), shear=0.0)
    >>> twice.shape, twice[0, :, :2].diagonal().tolist()
    ((1, 2, 3), [0.5, 0.5])
    """
    keys = jax.random.split(key, 4)
    angle = jnp.deg2rad(jax.random.uniform(keys[0], (count,), minval=-degrees, maxval=degrees))
    slant = jnp.tan(jnp.deg2rad(jax.random.uniform(keys[1], (count,), minval=-shear, maxval=shear)))
    enlargement = jax.random.uniform(keys[2], (count,), minval=scale[0], maxval=scale[1])
    shift = jax.random.uniform(keys[3], (count,), minval=-translate_y, maxval=translate_y)
    cos, sin, one, zero = jnp.cos(angle), jnp.sin(angle), jnp.ones(count), jnp.zeros(count)
    rotation = jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)
    unslant = jnp.stack([jnp.stack([one, zero], -1), jnp.stack([slant, one], -1)], -2)
    # With the digits that accelerators leave by default, places would be off by a good part of a pixel.
    product = partial(jnp.matmul, precision="highest")
    linear = product(unslant, rotation) / enlargement[:, None, None]
    offset = product(-linear, jnp.stack([shift, zero], -1)[:, :, None])
    return jnp.concatenate([linear, offset], axis=-1)


def sample_views(
    image: Float[Array, "h w c"],
    matrices: Float[Array, "n 2 3"],
    *,
    size: int,
    centre: Float[Array, "n 2"],
    side: Float[Array, ""] | float,
    longest: float | None = None,
) -> Float[Array, "n size size c"]:
    """Views of square windows of an image, each under its own affine map, bilinear, black outside the window.

    Args:
        image: (h, w, c).
        matrices: from `random_affine`, of no more than its default turn, slant and width of view.
        size: pixels a side of the output.
        centre: (n, 2) centres (y, x) of the windows in pixels; pixel i covers [i, i + 1).
        side: length of the windows in pixels, at most `longest`.
        longest: a bound that is known when this is compiled; by default the longer side of the image. A lower one saves
            arithmetic on TPUs.

    >>> image, upright, middle = jnp.arange(16.0).reshape(4, 4, 1), jnp.eye(2, 3)[None], jnp.array([[2.0, 2.0]])
    >>> views = jax.jit(sample_views, static_argnames="size")(image, upright, size=2, centre=middle, side=2.0)
    >>> views[0, :, :, 0].tolist()
    [[5.0, 6.0], [9.0, 10.0]]
    """
    h, w = image.shape[:2]
    axis = (jnp.arange(size) + 0.5) / size - 0.5
    grid = jnp.stack([*jnp.meshgrid(axis, axis, indexing="ij"), jnp.ones((size, size))])
    within = jnp.einsum("nij,jyx->niyx", matrices, grid, precision="highest")
    inside = jnp.all(jnp.abs(within) <= 0.5, axis=1)
    y, x = jnp.moveaxis(centre[:, :, None, None] + side * within - 0.5, 1, 0)
    y, x = jnp.clip(y, 0, h - 1), jnp.clip(x, 0, w - 1)
    in_tiles = partial(sample_in_tiles, step=(longest or max(h, w)) / size, slopes=SLOPES)
    views = jax.lax.platform_dependent(image, y, x, tpu=in_tiles, default=_gather)
    return views * inside[..., None]


def _gather(
    image: Float[Array, "h w c"], y: Float[Array, "n size size"], x: Float[Array, "n size size"]
) -> Float[Array, "n size size c"]:
    """The image at (y, x), bilinear: four pixels for each sample."""
    h, w = image.shape[:2]
    top, left = jnp.floor(y).astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
    down, right = (y - top)[..., None], (x - left)[..., None]
    bottom, beside = jnp.minimum(top + 1, h - 1), jnp.minimum(left + 1, w - 1)
    upper = image[top, left] * (1 - right) + image[top, beside] * right
    lower = image[bottom, left] * (1 - right) + image[bottom, beside] * right
    return upper * (1 - down) + lower * down
