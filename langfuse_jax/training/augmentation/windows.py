"""Random patches of an image, the same for every image of a batch, and the augmentation of a training crop."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PRNGKeyArray

from langfuse_jax.training.augmentation.affine import random_affine, sample_views


class Windows(NamedTuple):
    """Square windows and the affine view taken of each (see `sample_views`): for all images, or p for each of b."""

    matrices: Float[Array, "*b p 2 3"]
    centre: Float[Array, "*b p 2"]
    side: Float[Array, ""]

    @property
    def count(self) -> int:  # type: ignore[override]  # hides the method of tuples
        """Windows of an image."""
        return self.centre.shape[-2]


def random_windows(
    key: PRNGKeyArray, count: int, image_size: int, *, fraction: tuple[float, float] = (0.5, 0.8)
) -> Windows:
    """`count` windows of one common side, image_size * U(fraction), at uniform places inside a square image.

    >>> windows = random_windows(jax.random.key(0), 4, 100)
    >>> windows.count, windows.centre.shape, bool(50 <= windows.side <= 80)
    (4, (4, 2), True)
    """
    side_key, place_key, view_key = jax.random.split(key, 3)
    side = image_size * jax.random.uniform(side_key, minval=fraction[0], maxval=fraction[1])
    centre = side / 2 + (image_size - side) * jax.random.uniform(place_key, (count, 2))
    return Windows(random_affine(view_key, count), centre, side)


def cut_patches(
    images: Float[Array, "b h w 1"], windows: Windows, size: int, longest: float | None = None
) -> Float[Array, "b p size size 1"]:
    """The windows of every image at `size` pixels a side: crop, affine map and resize as one resampling.

    `longest` bounds the side of the windows, see `sample_views`.

    >>> windows = Windows(jnp.eye(2, 3)[None], jnp.array([[2.0, 2.0]]), jnp.asarray(2.0))
    >>> cut = jax.jit(cut_patches, static_argnums=2)
    >>> cut(jnp.arange(16.0).reshape(1, 4, 4, 1), windows, 2)[0, 0, :, :, 0].tolist()
    [[5.0, 6.0], [9.0, 10.0]]
    """
    if windows.centre.ndim == 3:

        def cut(
            image: Float[Array, "h w 1"], matrices: Float[Array, "p 2 3"], centre: Float[Array, "p 2"]
        ) -> Float[Array, "p size size 1"]:
            return sample_views(image, matrices, size=size, centre=centre, side=windows.side, longest=longest)

        return jax.vmap(cut)(images, windows.matrices, windows.centre)
    # With the batch as channels one gather serves all images, in rows of b adjacent numbers.
    stacked = jnp.moveaxis(images[..., 0], 0, -1)
    views = sample_views(
        stacked, windows.matrices, size=size, centre=windows.centre, side=windows.side, longest=longest
    )
    return jnp.moveaxis(views, -1, 0)[..., None]


def first_valid(windows: Windows, valid: Bool[Array, "b p"], count: int) -> tuple[Windows, Float[Array, "b count"]]:
    """For each image the first `count` windows that are valid, and by how much each of them counts.

    The windows of an image being alike and independent, its first valid ones stand for all valid ones: the mean over
    `count` of (weight * x) equals the mean over p of (valid * x) where no more than `count` are valid, and else has it
    as its expected value. Where fewer are valid, others fill up with weight 0.

    >>> windows = Windows(jnp.zeros((4, 2, 3)), jnp.zeros((4, 2)), jnp.asarray(60.0))
    >>> chosen, weights = first_valid(windows, jnp.array([[False, True, True, True]]), 2)
    >>> chosen.count, weights.tolist()
    (2, [[0.75, 0.75]])
    """
    chosen = jnp.argsort(~valid, axis=1, stable=True)[:, :count]
    kept = jnp.take_along_axis(valid, chosen, axis=1)
    weight = valid.mean(axis=1) / jnp.maximum(kept.mean(axis=1), 1 / count)
    picked = Windows(windows.matrices[chosen], windows.centre[chosen], windows.side)
    return picked, kept * weight[:, None]


def augment_pairs(
    keys: Key[Array, " b"], visible: Float[Array, "b s s 1"], infrared: Float[Array, "b s s 1"]
) -> tuple[Float[Array, "b s s 1"], Float[Array, "b s s 1"]]:
    """A random affine view of each pair by a key of its own, the same for its visible and its infrared image.

    >>> keys, pair = jax.random.split(jax.random.key(0), 1), jnp.ones((2, 1, 16, 16, 1))
    >>> [image.shape for image in jax.jit(augment_pairs)(keys, *pair)]
    [(1, 16, 16, 1), (1, 16, 16, 1)]
    """
    size = visible.shape[1]
    middle = jnp.full((1, 2), size / 2)

    def view(key: Key[Array, ""], pair: Float[Array, "s s 2"]) -> Float[Array, "s s 2"]:
        return sample_views(pair, random_affine(key, 1), size=size, centre=middle, side=float(size))[0]

    pairs = jax.vmap(view)(keys, jnp.concatenate([visible, infrared], axis=-1))
    return pairs[..., :1], pairs[..., 1:]
