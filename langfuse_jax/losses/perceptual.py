"""The perceptual term: features of the fused image against the elementwise maximum of the sources' features."""

from collections.abc import Callable, Sequence
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Gains that bring the bank's squared differences to the size of the language terms.
_BAND_GAIN = 8.0
_BASE_GAIN = 2.0
_SCALES = 5
# Per kind of octave, the weight of bright structure over dark and the slope left below zero. Where one source has a
# bright target and the other a dark one, bright shall win: warm people. The slope is what lets an image that starts out
# with the dark one cross over; the finest octave keeps every edge as strong as it is.
_FINEST = (1.25, 0.0)
_COARSER = (2.0, 0.35)


def perceptual_loss(
    features: Callable[[Float[Array, "b h w 1"]], Sequence[Array]],
    fused: Float[Array, "b h w 1"],
    visible: Float[Array, "b h w 1"],
    infrared: Float[Array, "b h w 1"],
) -> Float[Array, ""]:
    """Sum over feature maps of mean((features(fused) - max(features(visible), features(infrared)))^2).

    Args:
        features: maps (b, h, w, 1) images in [0, 1] to a sequence of feature maps: `models.vgg.VGG19`
            with its weights (the published choice), or `feature_bank`.
        fused, visible, infrared: (b, h, w, 1) in [0, 1].

    Returns:
        A float32 scalar, as in LDFusion (arXiv 2402.16267). The sources are constants to the gradient.

    >>> dark, bright = jnp.full((1, 32, 32, 1), 0.25), jnp.full((1, 32, 32, 1), 0.5)
    >>> [float(perceptual_loss(lambda images: [images], fused, dark, bright)) for fused in (dark, bright)]
    [0.0625, 0.0]
    """
    # Both sources of a sample are neighbours, so that one program serves both and none moves to another device.
    sources = jnp.stack([visible, infrared], 1).reshape(-1, *visible.shape[1:])
    targets = [of_both.reshape(-1, 2, *of_both.shape[1:]).max(1) for of_both in features(sources)]
    maps = zip(features(fused), jax.lax.stop_gradient(targets), strict=True)
    # Differences in the features' own dtype, their mean in float32.
    return reduce(jnp.add, [jnp.mean(jnp.square((found - target).astype(jnp.float32))) for found, target in maps])


def feature_bank(images: Float[Array, "b h w 1"]) -> tuple[Array, ...]:
    """A fixed bank of rectified band-pass features, for use where no VGG19 weights are at hand.

    At each of five octaves: the positive and the negative parts of horizontal and vertical differences and of a
    Laplacian, so that an elementwise maximum over two images takes the stronger structure of each sign. Last, the
    low-pass rest as the pair (x, 1 - x): the maximum over both images then means their average, where a plain
    maximum of x would brighten everything.

    Args:
        images: (b, h, w, 1) in [0, 1], at least 32 pixels a side.

    Returns:
        One (b, h', w', 1) array per octave, band and sign, finest first.

    >>> maps = jax.eval_shape(feature_bank, jnp.zeros((1, 32, 48, 1)))
    >>> len(maps), maps[0].shape, maps[-1].shape
    (32, (1, 32, 47, 1), (1, 1, 2, 1))
    """
    maps = []
    level = images
    for octave in range(_SCALES):
        bright, slope = _COARSER if octave else _FINEST
        smooth = _blur(level)
        for band in (level[:, :, 1:] - level[:, :, :-1], level[:, 1:] - level[:, :-1], level - smooth):
            maps.append(_BAND_GAIN * bright * jnp.maximum(band, slope * band))
            maps.append(_BAND_GAIN * jnp.maximum(-band, -slope * band))
        level = smooth[:, ::2, ::2]
    return (*maps, _BASE_GAIN * level, _BASE_GAIN * (1 - level))


def _blur(x: Float[Array, "b h w 1"]) -> Float[Array, "b h w 1"]:
    """Binomial 1 4 6 4 1 along both axes, edges repeated; as two matmuls, which compile and run fastest."""
    rows, columns = (_binomial_matrix(n) for n in x.shape[1:3])
    return jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns, precision="highest")


def _binomial_matrix(n: int) -> Float[np.ndarray, "n n"]:
    matrix = np.zeros((n, n), np.float32)
    for shift, weight in zip(range(-2, 3), (1, 4, 6, 4, 1), strict=True):
        np.add.at(matrix, (np.arange(n), np.clip(np.arange(n) + shift, 0, n - 1)), weight / 16)
    return matrix
