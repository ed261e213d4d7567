"""Glare opened: what a lamp hides in the visible image, drawn from the infrared one before the two are fused."""

import numpy as np
from jaxtyping import Float32

from langfuse_jax.classical.pyramid import gaussian_blur
from langfuse_jax.classical.target import stretched

Image = Float32[np.ndarray, "h w"]

_FROM, _TO = 0.9, 0.99  # blurred levels between which the visible image passes for blinded
_LEVEL = 0.6  # gray of the infrared's surroundings where it takes the place of the visible image
_SHARE = 0.85
_NIGHT = 0.45, 0.3  # medians of the visible image at which glare starts to be opened, and is opened altogether


def glare_opened(visible: Image, infrared: Image) -> Image:
    """The visible image, in [0, 1], with the infrared's local contrast where it is blinded; by day as it is.

    A bright sky, or a wall in the sun, is as white as glare is: a picture that is bright as a whole is left as it is.
    """
    blinded = np.clip((np.asarray(gaussian_blur(visible, 3.0)) - _FROM) / (_TO - _FROM), 0, 1)
    blinded = np.asarray(gaussian_blur(blinded.astype(np.float32), 4.0))
    night = float(np.clip((_NIGHT[0] - np.median(visible)) / (_NIGHT[0] - _NIGHT[1]), 0, 1))
    heat = stretched(infrared, 1.0)
    shown = np.clip(_LEVEL + heat - np.asarray(gaussian_blur(heat, 40.0)), 0, 1)
    return np.clip(visible + _SHARE * night * blinded * (shown - visible), 0, 1).astype(np.float32)
