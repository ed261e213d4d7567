"""Classical fusion on a Laplacian pyramid (Burt & Adelson, 1983), with hot targets kept, and its enhancement.

It makes the images that the compact CLIP learns to call well fused, and those that guide the start of a training run.
`gaussian_blur` to `guide_fuse` take numpy arrays, and JAX arrays under jit.
"""

from functools import reduce
from operator import add

import jax
import numpy as np
from jaxtyping import Float32, Int

Image = Float32[np.ndarray | jax.Array, "h w"]
Level = Float32[np.ndarray | jax.Array, "_ _"]


def gaussian_blur(image: Image, sigma: float) -> Image:
    """Gaussian blur with reflected borders; `sigma` in pixels. Wide kernels work on a reduced image."""
    if sigma > 4:
        step = int(sigma / 2)
        height, width = image.shape
        rows, columns = -(-height // step), -(-width // step)
        xp = image.__array_namespace__()
        padded = xp.pad(image, ((0, rows * step - height), (0, columns * step - width)), "edge")
        small = padded.reshape(rows, step, columns, step).mean((1, 3), dtype=np.float32)
        return _stretch(gaussian_blur(small, sigma / step), height, width, step)
    radius = max(1, int(3 * sigma + 0.5))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype(np.float32)
    return _filter(image, kernel / kernel.sum())


def _filter(image: Level, kernel: Float32[np.ndarray, " k"]) -> Level:
    radius = len(kernel) // 2
    xp = image.__array_namespace__()
    for axis in (0, 1):
        pad = [(radius, radius) if a == axis else (0, 0) for a in (0, 1)]
        padded = xp.pad(image, pad, "reflect" if image.shape[axis] > radius else "symmetric")
        length = image.shape[axis]
        taps = (padded[i : i + length] if axis == 0 else padded[:, i : i + length] for i in range(len(kernel)))
        image = reduce(add, (np.float32(weight) * tap for weight, tap in zip(kernel, taps, strict=True)))
    return image


def _stretch(small: Level, height: int, width: int, step: int) -> Level:
    """Bilinear enlargement by `step`, cut to (height, width)."""

    def axis(length: int, count: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
        position = np.clip((np.arange(length) + 0.5) / step - 0.5, 0, count - 1)
        low = np.minimum(position.astype(int), max(count - 2, 0))
        return low, np.minimum(low + 1, count - 1), (position - low).astype(np.float32)

    low, high, part = axis(height, small.shape[0])
    rows = small[low] * (1 - part)[:, None] + small[high] * part[:, None]
    low, high, part = axis(width, small.shape[1])
    return rows[:, low] * (1 - part) + rows[:, high] * part


_TAPS = np.array([1, 4, 6, 4, 1], np.float32) / 16


def _expand(small: Level, shape: tuple[int, ...]) -> Level:
    xp = small.__array_namespace__()
    rows, columns = small.shape
    spread = xp.stack([small, xp.zeros_like(small)], axis=-1).reshape(rows, 2 * columns)
    large = xp.stack([spread, xp.zeros_like(spread)], axis=1).reshape(2 * rows, 2 * columns)[: shape[0], : shape[1]]
    return _filter(large, 2 * _TAPS)


def laplacian_pyramid(image: Image, levels: int) -> list[Level]:
    """`levels` band-pass images, finest first, and the low-pass residue."""
    bands = []
    for _ in range(levels):
        small = _filter(image, _TAPS)[::2, ::2]
        bands.append(image - _expand(small, image.shape))
        image = small
    return [*bands, image]


def collapse(pyramid: list[Level]) -> Image:
    """The image of a Laplacian pyramid."""
    image = pyramid[-1]
    for band in pyramid[-2::-1]:
        image = band + _expand(image, band.shape)
    return image


def hot_targets(infrared: Image) -> Image:
    """Saliency in [0, 1]: hotter than both the surroundings and most of the image."""
    xp = infrared.__array_namespace__()
    smooth = gaussian_blur(infrared, 1.5)
    middle, top = xp.quantile(smooth[::4, ::4], np.array([0.5, 0.995], np.float32))
    everywhere = xp.clip((smooth - middle) / (top - middle + 0.05), 0, 1)
    around = gaussian_blur(infrared, min(infrared.shape) / 12)
    here = xp.clip((smooth - around) / (0.6 * (top - middle) + 0.05), 0, 1)
    return gaussian_blur(xp.clip(4 * everywhere * here, 0, 1), 1.0)


def pyramid_fuse(visible: Image, infrared: Image) -> Image:
    """A fused image in [0, 1]: the visible base, lifted to the infrared where that is hot, with the stronger details.

    Bands are blended softly by local activity (the fourth power of smoothed magnitudes), so the choice does not
    flicker with noise.
    """
    xp = visible.__array_namespace__()
    infrared = _stretched(infrared)
    saliency = hot_targets(infrared)
    lifted = visible + saliency * xp.maximum(infrared - visible, 0)
    levels = _levels(visible)
    fused = laplacian_pyramid(lifted, levels)
    other = laplacian_pyramid(infrared, levels)
    weight = 1 + 2 * saliency
    for level in range(levels):
        first, second = gaussian_blur(xp.abs(fused[level]), 1.5), gaussian_blur(xp.abs(other[level]), 1.5) * weight
        blend = second**4 / (first**4 + second**4 + 1e-12)
        fused[level] = fused[level] + blend * (other[level] - fused[level])
        weight = weight[::2, ::2]
    return xp.clip(collapse(fused), 0, 1)


def guide_fuse(visible: Image, infrared: Image) -> Image:
    """A fused image in [0, 1] for a network to learn from, made of what rectifiers can do.

    Its base is 0.65 of the visible image and 0.35 of the infrared one, lifted to the infrared where that is hot. Of
    each band it takes the larger of what is bright and the larger of what is dark in the two sources, which needs no
    look around to choose by; the finest two octaves a fifth stronger than they are, since a network will soften them.
    """
    xp = visible.__array_namespace__()
    infrared = _stretched(infrared)
    saliency = hot_targets(infrared)
    levels = _levels(visible)
    base = visible + _INFRARED_BASE * (infrared - visible)
    rest = laplacian_pyramid(base + saliency * xp.maximum(infrared - base, 0), levels)[-1]
    bands = zip(laplacian_pyramid(visible, levels)[:-1], laplacian_pyramid(infrared, levels)[:-1], strict=True)
    fused = [xp.maximum(xp.maximum(v, i), 0) + xp.minimum(xp.minimum(v, i), 0) for v, i in bands]
    finest = [_SHARPENED * band for band in fused[:2]]
    return xp.clip(collapse([*finest, *fused[2:], rest]), 0, 1)


_INFRARED_BASE = 0.35
_SHARPENED = 1.2


def _stretched(infrared: Image) -> Image:
    """Half way to the full range: thermal cameras often use a fraction of it, which would leave people gray."""
    xp = infrared.__array_namespace__()
    low, high = xp.quantile(infrared[::4, ::4], np.array([0.01, 0.998], np.float32))
    return xp.clip(0.5 * infrared + 0.5 * (infrared - low) / xp.maximum(high - low, 0.25), 0, 1)


def _levels(image: Image) -> int:
    return max(1, min(5, int(np.log2(min(image.shape) / 8))))


def enhance(image: Image, *, contrast: float, sharpness: float, brightness: float) -> Image:
    """Range stretch, gamma to a mean of `brightness`, CLAHE blended by `contrast`, unsharp mask by `sharpness`."""
    low, high = np.quantile(image[::4, ::4], (0.005, 0.995)).tolist()
    image = np.clip((image - low) / max(high - low, 0.2), 0, 1)
    gamma = np.log(brightness) / np.log(np.clip(image.mean(), 0.02, 0.98))
    image = np.clip(image, 1e-3, 1) ** np.float32(np.clip(gamma, 0.55, 1.5))
    image = image + np.float32(contrast) * (equalise(image) - image)
    return np.clip(image + np.float32(sharpness) * (image - gaussian_blur(image, 1.2)), 0, 1)


def equalise(image: Image, *, tiles: int = 6, bins: int = 64, limit: float = 2.5) -> Image:
    """Contrast-limited adaptive histogram equalisation (Zuiderveld, 1994) of an image in [0, 1].

    `limit` caps a bin of a tile's histogram at so many times the mean bin.
    """
    height, width = image.shape
    codes = np.minimum((image * bins).astype(np.int32), bins - 1)
    row, column = (np.arange(height) * tiles) // height, (np.arange(width) * tiles) // width
    tile = row[:, None] * tiles + column
    counts = np.bincount((tile * bins + codes).ravel(), minlength=tiles * tiles * bins).reshape(tiles * tiles, bins)
    frequencies = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    capped = np.minimum(frequencies, limit / bins)
    capped += (1 - capped.sum(1, keepdims=True)) / bins
    curves = np.cumsum(capped, axis=1).astype(np.float32).reshape(tiles, tiles, bins)

    def axis(length: int) -> tuple[Int[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
        position = np.clip((np.arange(length) + 0.5) * tiles / length - 0.5, 0, tiles - 1)
        low = np.minimum(position.astype(np.int32), tiles - 2)
        return low, (position - low).astype(np.float32)

    (top, down), (left, right) = axis(height), axis(width)
    top, down = top[:, None], down[:, None]
    upper = curves[top, left, codes] * (1 - right) + curves[top, left + 1, codes] * right
    lower = curves[top + 1, left, codes] * (1 - right) + curves[top + 1, left + 1, codes] * right
    return upper * (1 - down) + lower * down
