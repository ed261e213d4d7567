"""Contrasts and brightnesses of other cameras."""

from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

Numbers = TypeVar("Numbers", Array, np.ndarray)


def fade(key: PRNGKeyArray, images: Float[Array, "n h w 1"], *, most: float) -> Float[Array, "n h w 1"]:
    """Each image mixed with a random gray, or pushed away from it and clipped, by a random share of up to `most`.

    Sources of all contrasts and brightnesses, from flat thermal images to glaring visible ones.

    >>> import jax.numpy as jnp
    >>> fade(jax.random.key(0), jnp.ones((2, 1, 1, 1)), most=0.0).ravel().tolist()
    [1.0, 1.0]
    """
    return mixed(images, jax.random.uniform(key, (2, len(images), 1, 1, 1)), most)


def mixed(images: Numbers, shares_and_grays: Numbers, most: float | np.floating) -> Numbers:
    """`fade` by given numbers in [0, 1]: the first of two are the shares, the second the grays, for each image.

    >>> mixed(np.ones((1, 1, 1)), np.array([1.0, 0.5]).reshape(2, 1, 1, 1), most=0.5).ravel().tolist()
    [0.75]
    """
    shares, grays = shares_and_grays
    return (images + most * (2 * shares - 1) * (grays - images)).clip(0, 1)
