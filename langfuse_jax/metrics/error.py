"""Squared error against the sources: MSE, RMSE, PSNR. None tells much about fusion: the average of both wins."""

from functools import partial, reduce

import jax
import jax.numpy as jnp
from jaxtyping import Array

from langfuse_jax.metrics.region import Images, Scores, Sizes, gray, mean, pixels


@partial(jax.jit, static_argnames="convention")
def mean_squared_error(
    fused: Images, visible: Images, infrared: Images, *, sizes: Sizes = None, convention: str = "cddfuse"
) -> Scores:
    """MSE = (mean((F - A)^2) + mean((F - B)^2)) / 2, in squared gray levels; in "tang" of images in 0-1 (/ 255^2).

    Range [0, 65025], lower is better; 0 for identical images. Least for the average of the sources. Equals CDDFuse's
    and Tang's scripts; VIFB has none and gets CDDFuse's. Jagalingam and Hegde, Aquat. Procedia 2015.

    >>> fused, visible, infrared = jnp.array([10.0, 0.0, 20.0]).reshape(3, 1, 1, 1) * jnp.ones((3, 1, 4, 4))
    >>> mean_squared_error(fused, visible, infrared).tolist()
    [100.0]
    """
    error = reduce(jnp.add, _squared_errors(fused, visible, infrared, sizes)) / 2
    return error / 255**2 if convention == "tang" else error


@partial(jax.jit, static_argnames="convention")
def root_mean_squared_error(
    fused: Images, visible: Images, infrared: Images, *, sizes: Sizes = None, convention: str = "cddfuse"
) -> Scores:
    """RMSE = (sqrt(mean((F - A)^2)) + sqrt(mean((F - B)^2))) / 2, in gray levels.

    In "vifb" as its script: sqrt(sum of squares) / (h w), which falls as the image grows: unreliable. Range [0, 255],
    lower is better; 0 for identical images. The other scripts have none. Jagalingam and Hegde, Aquat. Procedia 2015.

    >>> fused, visible, infrared = jnp.array([10.0, 0.0, 20.0]).reshape(3, 1, 1, 1) * jnp.ones((3, 1, 4, 4))
    >>> root_mean_squared_error(fused, visible, infrared).tolist()
    [10.0]
    """
    visible_error, infrared_error = _squared_errors(fused, visible, infrared, sizes)
    root = (jnp.sqrt(visible_error) + jnp.sqrt(infrared_error)) / 2
    return root / jnp.sqrt(pixels(fused, sizes)) if convention == "vifb" else root


@partial(jax.jit, static_argnames="convention")
def peak_signal_to_noise_ratio(
    fused: Images, visible: Images, infrared: Images, *, sizes: Sizes = None, convention: str = "cddfuse"
) -> Scores:
    """PSNR = 10 log10(peak^2 / MSE) in dB; "corrected": peak 255.

    "cddfuse": peak max F (0 dB or less for dark F). "tang": peak 255 with the MSE of 0-1 images, 48.13 dB too high.
    "vifb": 10 log10(255^2 / RMSE), its size-dependent RMSE, 37 to 47 dB too high. All three equal their scripts and
    are unreliable. Range (-inf, inf], higher is better; inf where F equals both sources (black images too), else -inf
    for a black F in "cddfuse". Jagalingam and Hegde, Aquat. Procedia 2015.

    >>> fused, visible, infrared = jnp.array([10.0, 0.0, 20.0]).reshape(3, 1, 1, 1) * jnp.ones((3, 1, 4, 4))
    >>> round(peak_signal_to_noise_ratio(fused, visible, infrared, convention="corrected").item(), 2)
    28.13
    """
    error = reduce(jnp.add, _squared_errors(fused, visible, infrared, sizes)) / 2
    peak: Array | float = 255.0
    if convention == "cddfuse":
        peak = jnp.max(gray(sizes, fused)[0], axis=(1, 2))
    elif convention == "tang":
        error = error / 255**2
    elif convention == "vifb":
        error = root_mean_squared_error(fused, visible, infrared, sizes=sizes, convention=convention)
    return jnp.where(error == 0, jnp.inf, 20 * jnp.log10(peak) - 10 * jnp.log10(jnp.where(error == 0, 1, error)))


def _squared_errors(fused: Images, visible: Images, infrared: Images, sizes: Sizes) -> list[Scores]:
    f, v, i = gray(sizes, fused, visible, infrared)
    return [mean(jnp.square(f - x), sizes) for x in (v, i)]
