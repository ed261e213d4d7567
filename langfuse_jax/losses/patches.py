"""Which patches count: those where both sources carry information."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

BINS = 256
_ROOT = 16


def patch_entropy(images: Float[Array, "b h w 1"]) -> Float[Array, " b"]:
    """Shannon entropy in bits of each image's histogram: -sum p log2 p over 256 equal bins of [0, 1].

    Args:
        images: (b, h, w, 1) gray values; those outside [0, 1] are dropped, 1 belongs to the last bin.

    Returns:
        (b,) bits in [0, 8]; 0 for a constant image and for one with no value inside [0, 1].

    >>> patch_entropy(jnp.array([0.0, 0.25, 0.5, 0.75]).reshape(1, 2, 2, 1)).tolist()
    [2.0]
    """
    b = images.shape[0]
    values = images.reshape(b, -1)
    bins = jnp.clip(jnp.floor(values * BINS), 0, BINS - 1).astype(jnp.int32)
    inside = (values >= 0) & (values <= 1)
    counts = jax.lax.platform_dependent(bins, inside, tpu=count_by_products, default=count_by_scatter)
    p = counts / jnp.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    return -jnp.sum(p * jnp.log2(jnp.where(p > 0, p, 1.0)), axis=1)


def count_by_scatter(bins: Int[Array, "b n"], inside: Bool[Array, "b n"]) -> Float[Array, "b 256"]:
    """How many values `inside` are in each bin; image by image, so that those of other devices have no part in it."""
    return jax.vmap(lambda bins, inside: jnp.zeros(BINS).at[bins].add(inside))(bins, inside.astype(jnp.float32))


def count_by_products(bins: Int[Array, "b n"], inside: Bool[Array, "b n"]) -> Float[Array, "b 256"]:
    """The same where adding to single numbers is slow: a bin as two digits, of which each pair meets in a product."""
    digits = jnp.arange(_ROOT)[:, None]
    # Zeros and ones are exact in any dtype, and so are their sums in float32.
    high = ((bins[:, None] // _ROOT == digits) & inside[:, None]).astype(jnp.bfloat16)
    low = (bins[:, None] % _ROOT == digits).astype(jnp.bfloat16)
    counts = jnp.einsum("bhn,bln->bhl", high, low, preferred_element_type=jnp.float32)
    return counts.reshape(len(bins), BINS)


def informative(
    visible: Float[Array, "n h w 1"], infrared: Float[Array, "n h w 1"], *, threshold: float = 6.0
) -> Bool[Array, " n"]:
    """True for a patch whose entropy is above `threshold` bits in BOTH sources ((n, h, w, 1) in [0, 1] each).

    >>> flat, busy = jnp.full((1, 4, 4, 1), 0.5), jnp.linspace(0, 1, 16).reshape(1, 4, 4, 1)
    >>> [informative(busy, infrared, threshold=3.0).tolist() for infrared in (flat, busy)]
    [[False], [True]]
    """
    return (patch_entropy(visible) > threshold) & (patch_entropy(infrared) > threshold)
