"""What a student is to minimise: how far its fused images are from its teacher's."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from langfuse_jax.losses.ssim import ssim


def imitation_loss(
    fused: Float[Array, "b h w 1"], taught: Float[Array, "b h w 1"]
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """mean |fused - taught| + those of horizontal and vertical differences + (1 - SSIM).

    Args:
        fused, taught: (b, h, w, 1) in [0, 1], at least 11 pixels a side.

    Returns:
        A float32 scalar and its terms "pixels", "differences" and "ssim" (`losses.ssim.ssim`, higher is better).

    >>> image = jnp.tile(jnp.linspace(0, 1, 32)[:, None], (1, 1, 32))[..., None]
    >>> round(float(imitation_loss(image, image)[0]), 5)
    0.0
    """
    error = (fused - taught)[..., 0]
    terms = {
        "pixels": jnp.abs(error).mean(),
        "differences": jnp.abs(jnp.diff(error, axis=1)).mean() + jnp.abs(jnp.diff(error, axis=2)).mean(),
        "ssim": ssim(fused[..., 0], taught[..., 0]).mean(),
    }
    return terms["pixels"] + terms["differences"] + (1 - terms["ssim"]), terms
