"""Local means and covariances under a separable window, where the whole window lies inside the image.

Variances are sums of squared deviations from local means, never differences of large squares: float32 keeps its digits
on 0-255 data. Shifted sums, which XLA fuses: an order of magnitude faster on a CPU than a one-channel convolution.
"""

from collections.abc import Sequence

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


def local_mean(x: Float[Array, "b h w"], weights: Sequence[float]) -> Float[Array, "b hh ww"]:
    """The weighted mean of each window: (b, h - taps + 1, w - taps + 1)."""
    for axis in (1, 2):
        # Without the barrier the second pass computes the first one anew for each of its taps.
        x = jax.lax.optimization_barrier(_weighted(_shifts(x, len(weights), axis), weights))
    return x


def local_covariance(
    x: Float[Array, "b h w"], y: Float[Array, "b h w"], weights: Sequence[float]
) -> Float[Array, "b hh ww"]:
    """The weighted mean of (x - mean x)(y - mean y) of each window; the variance where y is x."""
    covariance = None
    for axis in (1, 2):
        xs, ys = (_shifts(z, len(weights), axis) for z in (x, y))
        x, y = (jax.lax.optimization_barrier(_weighted(shifts, weights)) for shifts in (xs, ys))
        # Of a window of windows: the mean covariance within plus the covariance of the means.
        between = _weighted([(p - x) * (q - y) for p, q in zip(xs, ys, strict=True)], weights)
        within = 0 if covariance is None else _weighted(_shifts(covariance, len(weights), axis), weights)
        covariance = jax.lax.optimization_barrier(within + between)
    return covariance


def _shifts(x, taps, axis):
    length = x.shape[axis] - taps + 1
    return [jax.lax.slice_in_dim(x, k, k + length, axis=axis) for k in range(taps)]


def _weighted(shifts, weights):
    return sum(weight * shift for weight, shift in zip(weights, shifts, strict=True))
