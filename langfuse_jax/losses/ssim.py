"""The structural similarity of two images, for losses."""

from jaxtyping import Array, Float

from langfuse_jax.metrics.structure import structural_similarity


def ssim(one: Float[Array, "b h w"], other: Float[Array, "b h w"]) -> Float[Array, " b"]:
    """SSIM of images in [0, 1] in the form of Wang et al., 2004: 11 x 11 Gaussian window, dynamic range 1; at most 1.

    >>> import jax.numpy as jnp
    >>> image = jnp.tile(jnp.linspace(0, 1, 32), (1, 32, 1))
    >>> round(ssim(image, image).item(), 5)
    1.0
    """
    # Gray levels of 0 to 255, each source the same image: the sum of two equal similarities.
    return structural_similarity(255 * one, 255 * other, 255 * other, convention="vifb") / 2
