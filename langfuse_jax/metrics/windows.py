"""Local means and covariances under a separable window, where the whole window lies inside the image.

Variances are sums of squared deviations from local means, never differences of large squares: float32 keeps its digits
on 0-255 data. Sums of shifted images: an order of magnitude faster on a CPU than a one-channel convolution.
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
    # In one stack: few operations to compile, and XLA does not fuse a pass into the next, which would compute it anew
    # for each tap.
    means = jnp.concatenate([fused, visible, infrared])
    variances = covariances = None
    for axis in (1, 2):
        shifts = _shifts(means, taps, axis)
        means = jax.lax.optimization_barrier(_weighted(shifts, weights))
        apart = [x - means for x in shifts]
        within, shared = variances, covariances
        variances = _weighted([x * x for x in apart], weights)
        with_source = (_weighted([x[:b] * x[k * b : (k + 1) * b] for x in apart], weights) for k in (1, 2))
        covariances = jnp.concatenate(list(with_source))
        if within is not None:
            # Of a window of windows: the covariance of the means plus the mean covariance within.
            variances += _weighted(_shifts(within, taps, axis), weights)
            covariances += _weighted(_shifts(shared, taps, axis), weights)
        variances, covariances = jax.lax.optimization_barrier((variances, covariances))
    return tuple(x.reshape(-1, b, *x.shape[1:]) for x in (means, variances, covariances))


def _shifts(x, taps, axis):
    length = x.shape[axis] - taps + 1
    return [jax.lax.slice_in_dim(x, k, k + length, axis=axis) for k in range(taps)]


def _weighted(shifts, weights):
    return sum(weight * shift for weight, shift in zip(weights, shifts, strict=True))
