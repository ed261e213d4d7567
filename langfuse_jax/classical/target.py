"""A classical fusion of natural light, crisp detail and bright targets: one of those that the compact CLIP calls good.

Its numbers were chosen by search on VIFB, a development set. It takes and gives numpy arrays.
"""

import numpy as np
from jaxtyping import Float32

from langfuse_jax.classical.pyramid import collapse, gaussian_blur, hot_targets, laplacian_pyramid

Image = Float32[np.ndarray, "h w"]

_LEVELS = 4
_VISIBLE_STRETCH, _INFRARED_STRETCH, _FINAL_STRETCH = 0.63, 0.36, 0.5
_CHOICE = 3.4  # power of the local activities that are compared; large: one source or the other
_NEIGHBOURHOOD = 3.2  # pixels
_INFRARED_WEIGHT, _HOT_WEIGHT = 0.67, 2.0
_BOOST = 1.07  # of every band
_BASE, _BASE_CHOICE = 0.19, 2.3  # what the infrared base counts, and the power of its distance from its mean
_DARKER = 0.6  # by how much less it counts where it is half the range darker than the visible: skies stay bright
_NOISE = (0.75, 0.19)  # mean level of white noise in the finest bands, per unit of its deviation
_LIFT = 0.5  # of the base towards the infrared's where that is hot


def target_fuse(visible: Image, infrared: Image) -> Image:
    """A fused image in [0, 1] of two sources in [0, 1].

    Each band of a Laplacian pyramid is taken from the source that has more of it, where the infrared is hot rather from
    the infrared; the finest without what its source's noise explains; the base from the one that differs more from its
    own mean, rather from the visible and rather the brighter; and all is stretched moderately.
    """
    visible, infrared = stretched(visible, _VISIBLE_STRETCH), stretched(infrared, _INFRARED_STRETCH)
    first, second = laplacian_pyramid(visible, _LEVELS), laplacian_pyramid(infrared, _LEVELS)
    hot = hot_targets(infrared)
    weight = _INFRARED_WEIGHT * (1 + _HOT_WEIGHT * hot)
    noise = [_noise(source) * np.array([*_NOISE, 0, 0], np.float32) for source in (visible, infrared)]
    bands, heat = [], hot
    for one, other, level_noise in zip(first[:-1], second[:-1], zip(*noise, strict=True), strict=True):
        ours, theirs = (
            np.asarray(gaussian_blur(np.abs(band), _NEIGHBOURHOOD)) + np.float32(1e-4) for band in (one, other)
        )
        one, other = (
            band * active**2 / (active**2 + least**2)
            for band, active, least in zip((one, other), (ours, theirs), level_noise, strict=True)
        )
        share = _share(theirs * weight, ours, _CHOICE)
        bands.append(_BOOST * (one + share * (other - one)))
        weight, heat = weight[::2, ::2], np.asarray(gaussian_blur(heat, 1.0), np.float32)[::2, ::2]
    one, other = first[-1], second[-1]
    ours, theirs = (np.abs(base - base.mean()) + np.float32(0.02) for base in (one, other))
    share = np.clip(_share(theirs, ours, _BASE_CHOICE) + _BASE - 0.5, 0, 1)
    base = one + share * (1 - _DARKER * np.clip(2 * (one - other), 0, 1)) * (other - one)
    base = base + _LIFT * heat * np.maximum(other - base, 0)
    return stretched(np.clip(collapse([*bands, base.astype(np.float32)]), 0, 1).astype(np.float32), _FINAL_STRETCH)


def stretched(image: Image, amount: float) -> Image:
    """`image` with its first and last percents moved `amount` of the way to 0 and 1, at most 2.5 times wider."""
    low, high = np.percentile(image, [1, 99])
    low, high = amount * low, 1 - amount * (1 - high)
    gain = min(1 / max(high - low, 1e-3), 2.5)
    return np.clip((image - (low + high) / 2) * gain + 0.5, 0, 1).astype(np.float32)


def _share(theirs: Float32[np.ndarray, "h w"], ours: Float32[np.ndarray, "h w"], power: float) -> Image:
    return theirs**power / (theirs**power + ours**power)


def _noise(image: Image) -> float:
    """The deviation of an image's noise, after Immerkaer (1996), of what is neither black nor white."""
    second = image[:-2] - 2 * image[1:-1] + image[2:]
    second = np.abs(second[:, :-2] - 2 * second[:, 1:-1] + second[:, 2:])
    exposed = (image > 0.02) & (image < 0.98)
    inside = second[exposed[1:-1, 1:-1]]
    return float(np.median(inside if inside.size else second)) / (6 * 0.6745)
