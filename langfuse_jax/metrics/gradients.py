"""How much an image varies: standard deviation, spatial frequency, average gradient, edge intensity."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from langfuse_jax.metrics.region import (
    Images,
    Maps,
    Scores,
    Sizes,
    centred,
    gray,
    mean,
    padded,
    pixels,
    replicate,
    total,
)


@jax.jit
def standard_deviation(fused: Images, *, sizes: Sizes = None) -> Scores:
    """SD = sqrt(mean((F - mean F)^2)), the population's, in gray levels.

    Range [0, 127.5], higher is better; 0 for a constant image. Noise and saturation raise it. Rao, Meas. Sci. Technol.
    1997. The same in all published scripts (VIFB calls it variance).

    >>> stripes = jnp.array([[[0, 10], [0, 10]]])
    >>> standard_deviation(stripes).tolist()
    [5.0]
    """
    (fused,) = gray(sizes, fused)
    return jnp.sqrt(mean(jnp.square(centred(fused, sizes)), sizes))


@partial(jax.jit, static_argnames="convention")
def spatial_frequency(fused: Images, *, sizes: Sizes = None, convention: str = "cddfuse") -> Scores:
    """SF = sqrt(mean(dx^2) + mean(dy^2)), dx and dy the differences of neighbours, in gray levels.

    The means are over the differences there are; in "vifb" both sums are divided by h w (0.1 to 0.2 % lower).
    Range [0, 361], higher is better; 0 for a constant image. Noise raises it. Eskicioglu and Fisher, IEEE Trans.
    Commun. 1995.

    >>> stripes = jnp.array([[[0, 10], [0, 10]]])
    >>> spatial_frequency(stripes).tolist()
    [10.0]
    """
    (fused,) = gray(sizes, fused)
    maps = ((jnp.diff(fused, axis=2), 0, 1), (jnp.diff(fused, axis=1), 1, 0))
    powers = []
    for difference, rows, columns in maps:
        left = None if sizes is None else jnp.maximum(sizes - jnp.array([rows, columns]), 0)
        n = pixels(fused, sizes) if convention == "vifb" else jnp.maximum(pixels(difference, left), 1)
        powers.append(total(jnp.square(difference), left) / n)
    return jnp.sqrt(sum(powers))


@partial(jax.jit, static_argnames="convention")
def average_gradient(fused: Images, *, sizes: Sizes = None, convention: str = "cddfuse") -> Scores:
    """AG = mean(sqrt((gx^2 + gy^2) / 2)), g central differences inside and one-sided ones at the border; gray levels.

    In "tang" and "vifb" the sum is divided by (h - 1)(w - 1), not h w (0.4 to 0.7 % higher).
    Range [0, 255], higher is better; 0 for a constant image and along a side of one pixel. Noise raises it.
    Cui et al., Opt. Commun. 2015.

    >>> stripes = jnp.array([[[0, 10], [0, 10]]])
    >>> round(average_gradient(stripes).item(), 3)
    7.071
    """
    (fused,) = gray(sizes, fused)
    gradients = (slope(fused, sizes, axis) for axis in (1, 2))
    magnitude = jnp.sqrt(sum(jnp.square(g) for g in gradients) / 2)
    if convention in ("tang", "vifb"):
        h, w = (fused.shape[k + 1] if sizes is None else sizes[:, k] for k in (0, 1))
        return total(magnitude, sizes) / jnp.maximum((h - 1) * (w - 1), 1)
    return mean(magnitude, sizes)


@jax.jit
def edge_intensity(fused: Images, *, sizes: Sizes = None) -> Scores:
    """EI = mean(sqrt(sx^2 + sy^2)), s the Sobel responses ([1 2 1], not normalised; edges repeated), gray levels.

    Range [0, 1141], higher is better; 0 for a constant image. Noise raises it. Rajalingam and Priya, Int. J. Eng.
    Sci. Invent. 2018. Equals VIFB's script; the same in every convention.

    >>> stripes = jnp.array([[[0, 10], [0, 10]]])
    >>> edge_intensity(stripes).tolist()
    [40.0]
    """
    (fused,) = gray(sizes, fused)
    x, y = sobel(padded(fused, sizes, 1))
    return mean(jnp.sqrt(x * x + y * y), sizes)


def sobel(image: Maps) -> tuple[Float[Array, "b hh ww"], Float[Array, "b hh ww"]]:
    """Responses to [-1 0 1; -2 0 2; -1 0 1] and to its transpose, inside: (b, h - 2, w - 2) each.

    Exact for whole gray levels. The first grows to the right, the second downwards.
    """
    across, down = image[:, :, 2:] - image[:, :, :-2], image[:, 2:] - image[:, :-2]
    return (
        across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:],
        down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:],
    )


def slope(image: Maps, sizes: Sizes, axis: int) -> Maps:
    """numpy.gradient along an axis."""
    n = image.shape[axis]
    length = n if sizes is None else sizes[:, axis - 1, None, None]
    image = jnp.moveaxis(replicate(image, sizes), axis, -1)
    wide = jnp.pad(image, ((0, 0), (0, 0), (1, 1)), mode="edge")
    at = jnp.arange(n)
    # With its edge repeated a border pixel spans one step, not two.
    span = jnp.where((at == 0) | (at == length - 1), 1, 2)
    return jnp.moveaxis((wide[..., 2:] - wide[..., :-2]) / span, -1, axis)
