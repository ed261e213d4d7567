"""A quick look at whether two images lie over each other, without OpenCV."""

import numpy as np
from jaxtyping import Complex64, Float32
from PIL import Image
from scipy import fft, ndimage

from langfuse_jax.alignment.features import outstanding_angles, vertex

_PIXELS = 160 * 120  # of the images that are compared: a quarter of a camera's width
_REACH = 24  # pixels that one image may be shifted
_SCALES = (0.8, 0.87, 0.935, 1.0, 1.07, 1.15, 1.24)
_TURNS = np.deg2rad([-4.0, 0.0, 4.0])
_LEAST = 0.08  # correlation of images that show the same
_SHIFTED = 1.03  # of the correlation in place, that a shifted image must have
_UNIQUE = 1.1  # of the next best shift's
_CHANGED = 1.15  # of the correlation in place, that an image of another scale or angle must have
_PEAK = 4  # pixels about a shift that are the same peak

_Features = Complex64[np.ndarray, "a b"]


def displacement(visible: Float32[np.ndarray, "h w"], infrared: Float32[np.ndarray, "h w"]) -> float:
    """By how many pixels two images of one size appear to be out of register, on average; 0 without evidence.

    Both are compared at about 160x120 pixels, by where their edges run: shifted, and at 20 other scales and angles. It
    takes some 60 ms and is a rough check; measure with `align`.

    >>> rng = np.random.default_rng(0)
    >>> scene = ndimage.gaussian_filter(rng.standard_normal((120, 160)), 2).astype(np.float32)
    >>> displacement(scene, -scene), round(displacement(scene, np.roll(-scene, 6, axis=1)))
    (0.0, 6)
    """
    height, width = visible.shape
    unit = np.sqrt(width * height / _PIXELS)
    size = max(_PEAK, round(width / unit)), max(_PEAK, round(height / unit))
    seen, thermal = (_features(image, size) for image in (visible, infrared))
    padded = tuple(fft.next_fast_len(side + 2 * _REACH) for side in seen.shape)
    transformed = fft.fft2(seen, padded)
    energy = float((np.abs(seen) ** 2).sum())
    in_place = _surface(transformed, energy, thermal)
    y, x = _highest(in_place)
    height_there, height_here = float(in_place[y, x]), float(in_place[_REACH, _REACH])
    others = in_place.copy()
    others[max(0, y - _PEAK) : y + _PEAK + 1, max(0, x - _PEAK) : x + _PEAK + 1] = -1
    near = float(in_place[_REACH - 1 : _REACH + 2, _REACH - 1 : _REACH + 2].max())
    best, away = max(_elsewhere(transformed, energy, thermal))
    if best > max(_LEAST, _CHANGED * near, height_there):
        return unit * away
    if height_there > max(_LEAST, _SHIFTED * height_here, _UNIQUE * float(others.max())):
        down, across = vertex(in_place[y - 1 : y + 2, x]), vertex(in_place[y, x - 1 : x + 2])
        return unit * float(np.hypot(y + down - _REACH, x + across - _REACH))
    return 0.0


def _features(image: Float32[np.ndarray, "h w"], size: tuple[int, int]) -> _Features:
    return outstanding_angles(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)))


def _elsewhere(
    transformed: Complex64[np.ndarray, "H W"], energy: float, thermal: _Features
) -> list[tuple[float, float]]:
    """The best correlation at each other scale and angle, and how far the image is moved there on average."""
    h, w = thermal.shape
    middle = np.array([(h - 1) / 2, (w - 1) / 2])
    down, across = np.mgrid[0:h, 0:w] - middle[:, None, None]
    found = []
    for scale in _SCALES:
        for turn in _TURNS:
            if scale == 1 and turn == 0:
                continue
            cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
            back = np.array([[cos, -sin], [sin, cos]])  # of rows and columns
            moved = ndimage.affine_transform(thermal, back, middle - back @ middle, order=1)
            surface = _surface(transformed, energy, moved * np.complex64(np.exp(2j * turn)))
            y, x = _highest(surface)
            there = scale * np.exp(1j * turn) * (across + 1j * down) + (x - _REACH) + 1j * (y - _REACH)
            found.append((float(surface[y, x]), float(np.abs(there - across - 1j * down).mean())))
    return found


def _surface(
    transformed: Complex64[np.ndarray, "H W"], energy: float, thermal: _Features
) -> Float32[np.ndarray, "n n"]:
    """The correlation for each shift within reach, that of none in the middle."""
    shape = transformed.shape
    across = fft.ifft2(transformed * np.conj(fft.fft2(thermal, shape))).real
    within = np.arange(-_REACH, _REACH + 1)
    norm = np.sqrt(energy * float((np.abs(thermal) ** 2).sum()) + 1e-12)
    return (across[np.ix_(within % shape[0], within % shape[1])] / norm).astype(np.float32)


def _highest(surface: Float32[np.ndarray, "n n"]) -> tuple[int, int]:
    """Where a surface is highest, but for its edge."""
    inner = surface[1:-1, 1:-1]
    y, x = np.unravel_index(inner.argmax(), inner.shape)
    return int(y) + 1, int(x) + 1
