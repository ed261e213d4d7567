"""Random patches of an image, the same for every image of a batch, and the augmentation of a training crop."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from langfuse_jax.data.affine import random_affine, sample_views


class Windows(NamedTuple):
    """Square windows and the affine view taken of each: see `sample_views`."""

    matrices: Float[Array, "p 2 3"]
    centre: Float[Array, "p 2"]
    side: Float[Array, ""]


def random_windows(
    key: PRNGKeyArray, count: int, image_size: int, *, fraction: tuple[float, float] = (0.5, 0.8)
) -> Windows:
    """`count` windows of one common side, image_size * U(fraction), at uniform places inside a square image."""
    side_key, place_key, view_key = jax.random.split(key, 3)
    side = image_size * jax.random.uniform(side_key, minval=fraction[0], maxval=fraction[1])
    centre = side / 2 + (image_size - side) * jax.random.uniform(place_key, (count, 2))
    return Windows(random_affine(view_key, count), centre, side)


def cut_patches(images: Float[Array, "b h w 1"], windows: Windows, size: int) -> Float[Array, "n size size 1"]:
    """The windows of every image at `size` pixels a side; patch p of image b is row p * b_total + b."""
    # With the batch as channels one gather serves all images, in rows of b adjacent numbers.
    stacked = jnp.moveaxis(images[..., 0], 0, -1)
    views = sample_views(stacked, windows.matrices, size=size, centre=windows.centre, side=windows.side)
    return jnp.moveaxis(views, -1, 1).reshape(-1, size, size, 1)


def augment_pairs(
    key: PRNGKeyArray, visible: Float[Array, "b s s 1"], infrared: Float[Array, "b s s 1"]
) -> tuple[Float[Array, "b s s 1"], Float[Array, "b s s 1"]]:
    """A random affine view of each pair, the same for its visible and its infrared image."""
    b, size = visible.shape[:2]
    middle = jnp.full((1, 2), size / 2)

    def view(pair, matrix):
        return sample_views(pair, matrix[None], size=size, centre=middle, side=float(size))[0]

    pairs = jax.vmap(view)(jnp.concatenate([visible, infrared], axis=-1), random_affine(key, b))
    return pairs[..., :1], pairs[..., 1:]
