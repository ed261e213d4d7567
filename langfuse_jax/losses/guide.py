"""The guide of a training run's start: a classical fusion, which pixels can be compared with one by one."""

from typing import cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from langfuse_jax.classical.pyramid import guide_fuse
from langfuse_jax.losses.ssim import ssim


def guide_loss(
    fused: Float[Array, "b h w 1"], visible: Float[Array, "b h w 1"], infrared: Float[Array, "b h w 1"]
) -> Float[Array, ""]:
    """Distance e to `guide_fuse` of the sources: mean |e|, plus twice that of its differences, plus (1 - SSIM) / 2.

    It is not in LDFusion (arXiv 2402.16267). Where maxima of features only say what is too little, each pixel of a
    classical fusion says where to go; differences and SSIM (`ssim`) keep the fine texture that the first term
    alone would blur.

    Args:
        fused, visible, infrared: (b, h, w, 1) in [0, 1], float32.

    Returns:
        A float32 scalar. The sources are constants to the gradient.

    >>> image = jnp.tile(jnp.linspace(0, 1, 64)[:, None], (1, 1, 64))[..., None]
    >>> loss = jax.jit(guide_loss)
    >>> bool(loss(image, image, image) < 0.1 < loss(1 - image, image, image))
    True
    """
    guide = jax.lax.stop_gradient(cast(Array, jax.vmap(guide_fuse)(visible[..., 0], infrared[..., 0])))
    error = fused[..., 0] - guide
    differences = jnp.abs(jnp.diff(error, axis=1)).mean() + jnp.abs(jnp.diff(error, axis=2)).mean()
    return jnp.abs(error).mean() + 2 * differences + (1 - ssim(fused[..., 0], guide).mean()) / 2
