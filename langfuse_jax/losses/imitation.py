"""What a student is to minimise: how far its fused images are from its teacher's."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from langfuse_jax.metrics.structure import structural_similarity


def imitation_loss(
    fused: Float[Array, "b h w 1"], taught: Float[Array, "b h w 1"]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """mean |fused - taught| + those of horizontal and vertical differences + (1 - SSIM).

    Args:
        fused, taught: (b, h, w, 1) in [0, 1], at least 11 pixels a side.

    Returns:
        A float32 scalar and its terms "pixels", "differences" and "ssim" (`similarity`, higher is better).

    >>> image = jnp.tile(jnp.linspace(0, 1, 32)[:, None], (1, 1, 32))[..., None]
    >>> round(float(imitation_loss(image, image)[0]), 5)
    0.0
    """
    error = (fused - taught)[..., 0]
    terms = {
        "pixels": jnp.abs(error).mean(),
        "differences": jnp.abs(jnp.diff(error, axis=1)).mean() + jnp.abs(jnp.diff(error, axis=2)).mean(),
        "ssim": similarity(fused[..., 0], taught[..., 0]).mean(),
    }
    return terms["pixels"] + terms["differences"] + (1 - terms["ssim"]), terms


def similarity(fused: Float[Array, "b h w"], taught: Float[Array, "b h w"]) -> Float[Array, " b"]:
    """SSIM of images in [0, 1] in the form of Wang et al., 2004: 11 x 11 Gaussian window, dynamic range 1; at most 1.

    >>> image = jnp.tile(jnp.linspace(0, 1, 32), (1, 32, 1))
    >>> round(similarity(image, image).item(), 5)
    1.0
    """
    # Gray levels of 0 to 255, each source the same image: the sum of two equal similarities.
    return structural_similarity(255 * fused, 255 * taught, 255 * taught, convention="vifb") / 2
