"""Local means and covariances under a separable window, where the whole window lies inside the image.

Variances are sums of squared deviations from local means, never differences of large squares: float32 keeps its digits
on 0-255 data. Sums of shifted images: an order of magnitude faster on a CPU than a one-channel convolution.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def gaussian(taps: int, sigma: float) -> tuple[float, ...]:
    """Weights exp(-k^2 / (2 sigma^2)) about the middle, with sum 1."""
    weights = np.exp(-((np.arange(taps) - (taps - 1) / 2) ** 2) / (2 * sigma**2))
    return tuple((weights / weights.sum()).tolist())


def uniform(taps: int) -> tuple[float, ...]:
    """Equal weights with sum 1."""
    return (1 / taps,) * taps


def local_mean(x: Float[Array, "n h w"], weights: Sequence[float]) -> Float[Array, "n hh ww"]:
    """The weighted mean of each window: (n, h - taps + 1, w - taps + 1)."""
    for axis in (1, 2):
        x = jax.lax.optimization_barrier(_weighted(_shifts(x, len(weights), axis), weights))
    return x


def triple_moments(
    fused: Float[Array, "b h w"],
    visible: Float[Array, "b h w"],
    infrared: Float[Array, "b h w"],
    weights: Sequence[float],
) -> tuple[Float[Array, "3 b hh ww"], Float[Array, "3 b hh ww"], Float[Array, "2 b hh ww"]]:
    """Of each window: means and variances of fused, visible, infrared; covariances of fused with visible, infrared."""
    b, taps = fused.shape[0], len(weights)
    means = jnp.concatenate([fused, visible, infrared])
    moments: Any = None  # none within single pixels
    for axis in (1, 2):
        shifts = _shifts(means, taps, axis)
        means = _weighted(shifts, weights)
        apart = [x - means for x in shifts]
        parts = [_weighted([x * x for x in apart], weights)]
        parts += [_weighted([x[:b] * x[k * b : (k + 1) * b] for x in apart], weights) for k in (1, 2)]
        if moments is not None:
            # Of a window of windows: the covariance of the means plus the mean covariance within.
            within = _weighted(_shifts(moments, taps, axis), weights)
            parts = [x + y for x, y in zip(parts, jnp.split(within, (3 * b, 4 * b)), strict=True)]
        # One stack, which XLA does not fuse with what follows: that would compute a pass anew for each tap of the next.
        means, moments = jax.lax.optimization_barrier((means, jnp.concatenate(parts)))
    means, moments = (x.reshape(-1, b, *x.shape[1:]) for x in (means, moments))
    return means, moments[:3], moments[3:]


def _shifts(x: Float[Array, "n h w"], taps: int, axis: int) -> list[Float[Array, "n hh ww"]]:
    length = x.shape[axis] - taps + 1
    return [jax.lax.slice_in_dim(x, k, k + length, axis=axis) for k in range(taps)]


def _weighted(shifts: Sequence[Float[Array, "n h w"]], weights: Sequence[float]) -> Float[Array, "n h w"]:
    return reduce(jnp.add, (weight * shift for weight, shift in zip(weights, shifts, strict=True)))
