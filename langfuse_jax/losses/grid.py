"""What a network draws over an image of its own accord: a grid that repeats from block to block."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

PERIOD = 8  # pixels: the side of the blocks that the fusion network redraws, so 2 and 4 too
_FLOOR = 1e-5  # of a pattern's size, where the root's gradient would be infinite


def grid_loss(
    fused: Float[Array, "b h w 1"], visible: Float[Array, "b h w 1"], infrared: Float[Array, "b h w 1"]
) -> Float[Array, ""]:
    """Mean over samples of the size of the pattern that repeats every 8 pixels and comes from neither source.

    The pattern of an image is the mean of its 8 x 8 blocks, less their mean level. What the patterns of the sources
    explain (by least squares, neither made more than twice as strong) is taken off that of the fused image; the root
    mean square of the rest, over the 64 places, is the loss. Scenes leave next to nothing in it, since blocks differ;
    what a network adds to each block does. It is not in LDFusion (arXiv 2402.16267).

    Args:
        fused, visible, infrared: (b, h, w, 1) in [0, 1], at least 8 pixels a side. The sources are constants to the
            gradient.

    Returns:
        A float32 scalar in [0, 1]; 1/255 is a grid of one gray level.

    >>> key = jax.random.key(0)
    >>> scene = jax.random.uniform(key, (1, 64, 64, 1))
    >>> columns = 0.01 * (jnp.arange(64) % 2 * 2 - 1)[:, None]
    >>> [round(float(grid_loss(fused, scene, 1 - scene)), 3) for fused in (scene, scene + columns)]
    [0.0, 0.01]
    """
    of_visible, of_infrared = jax.lax.stop_gradient((_pattern(visible), _pattern(infrared)))
    rest = _without(_without(_pattern(fused), of_visible), _without(of_infrared, of_visible))
    return jnp.sqrt(jnp.square(rest).mean(1) + _FLOOR**2).mean() - _FLOOR


def _without(pattern: Float[Array, "b p"], other: Float[Array, "b p"]) -> Float[Array, "b p"]:
    """What of a pattern another one does not explain, unless it would have to be more than twice as strong."""
    coefficient = (pattern * other).sum(1, keepdims=True) / (jnp.square(other).sum(1, keepdims=True) + _FLOOR**2)
    return pattern - jnp.clip(coefficient, -2, 2) * other


def _pattern(images: Float[Array, "b h w 1"]) -> Float[Array, "b p"]:
    """The mean 8 x 8 block of each image, less its mean."""
    b, h, w, _ = images.shape
    rows, columns = h // PERIOD, w // PERIOD
    blocks = images[:, : rows * PERIOD, : columns * PERIOD, 0].reshape(b, rows, PERIOD, columns, PERIOD)
    mean = blocks.astype(jnp.float32).mean((1, 3)).reshape(b, -1)
    return mean - mean.mean(1, keepdims=True)
