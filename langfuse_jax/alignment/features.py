"""What images of different cameras share: where their edges run, whichever side of them is brighter."""

import numpy as np
from jaxtyping import Complex64, Float32
from scipy import ndimage

_AROUND = 12.0  # pixels: standard deviation of the Gaussian within which edges are compared in strength
_DERIVATIVE = 1.0  # pixels: that of the derivative's Gaussian
_LEVEL = 10.0  # pixels: that of the Gaussian within which directions count as the usual ones


def doubled_angles(image: Float32[np.ndarray, "h w"]) -> Complex64[np.ndarray, "h w"]:
    """The gradient of an image as a complex number of doubled angle, with a magnitude from 0 to 1.

    An edge and its negative have the same value. The magnitude is that of the gradient over itself plus the mean around
    it, so that faint texture counts beside strong edges.

    >>> edge = np.float32(np.arange(32) > 15)[None].repeat(32, 0)
    >>> found, negative = doubled_angles(edge), doubled_angles(1 - edge)
    >>> bool(np.abs(found).max() > 0.5), bool(np.allclose(found, negative, atol=1e-5))
    (True, True)
    """
    across, down = (ndimage.gaussian_filter(image, _DERIVATIVE, order=order) for order in ((0, 1), (1, 0)))
    gradient = across + 1j * down
    size = np.abs(gradient)
    around = ndimage.gaussian_filter(size, _AROUND) + size.mean() / 2
    return (gradient**2 / np.maximum(size * (size + around), 1e-12)).astype(np.complex64)


def outstanding_angles(image: Float32[np.ndarray, "h w"]) -> Complex64[np.ndarray, "h w"]:
    """`doubled_angles` minus their local mean; otherwise any two roads would correlate.

    >>> outstanding_angles(np.zeros((32, 32), np.float32)).max().item()
    0j
    """
    features = doubled_angles(image)
    return (features - ndimage.gaussian_filter(features, _LEVEL)).astype(np.complex64)


def vertex(three: Float32[np.ndarray, "3"]) -> float:
    """Where the parabola through three neighbouring values has its peak, counted from the middle one.

    >>> round(vertex(np.float32([1, 2, 1.5])), 3), vertex(np.float32([1, 2, 2]))
    (0.167, 0.5)
    """
    before, at, after = three.tolist()
    curve = before - 2 * at + after
    return 0.0 if curve >= 0 else min(0.5, max(-0.5, 0.5 * (before - after) / curve))
