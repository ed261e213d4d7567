"""A detector of patterns that a network draws: rows, weaves and grids that repeat every 2 to 16 pixels."""

import numpy as np
from jaxtyping import Float

SIDE = 64  # pixels, of the blocks whose spectra are averaged
_LONGEST = 16  # pixels, of the periods looked for
_FLAT = 1 / 255  # standard deviation below which a block counts as flat: a pattern shows most on flat surfaces
_AROUND = 7  # frequencies a side, of the neighbourhood that a peak is compared with


def periodicity(image: Float[np.ndarray, "h w"]) -> float:
    """By what factor the strongest repeating pattern's amplitude stands above what surrounds it in the spectrum.

    Blocks of an image in [0, 1], rounded to 8 bits, overlapping by half, are brought to one contrast, and their power
    spectra averaged (Welch, 1967). Each frequency is compared with those as high in other directions, and then, if its
    period is 2 to 16 pixels, with the median of the 7 x 7 frequencies around it and with its neighbours in the same
    direction, whichever is more: noise, texture and edges give about 1.5, whether sharp or blurred, a pattern of a
    tenth of a flat block's contrast several times as much. Raises ValueError for images smaller than a block of 64.

    >>> noise = np.random.default_rng(0).normal(0.5, 0.01, (192, 192))
    >>> rows = noise + 0.01 * (np.arange(192) % 4 < 2)[:, None]
    >>> periodicity(noise) < 2 < 4 < periodicity(rows)
    True
    """
    if min(image.shape) < SIDE:
        raise ValueError(f"an image of {image.shape} is smaller than a block of {SIDE} pixels")
    image = np.rint(255 * np.clip(image, 0, 1)) / 255
    window = np.outer(np.hanning(SIDE), np.hanning(SIDE))
    power = np.zeros((SIDE, SIDE))
    for top in range(0, image.shape[0] - SIDE + 1, SIDE // 2):
        for left in range(0, image.shape[1] - SIDE + 1, SIDE // 2):
            block = image[top : top + SIDE, left : left + SIDE].astype(np.float64)
            block = (block - block.mean()) / max(block.std(), _FLAT)
            power += np.abs(np.fft.fft2(window * block)) ** 2
    logs = np.log(power + 1e-9)
    radius = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(SIDE, 1 / SIDE)]))
    ring = np.rint(radius).astype(int)
    profile = [np.median(logs[ring == r]) for r in range(ring.max() + 1)]
    logs = logs - np.interp(radius, np.arange(len(profile)), profile)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(logs, _AROUND // 2, mode="wrap"), (_AROUND, _AROUND))
    beside = np.median([_along(logs, step) for step in (-4, -3, -2, 2, 3, 4)], axis=0)
    excess = logs - np.maximum(np.median(around, axis=(-2, -1)), beside)
    frequency = np.abs(np.fft.fftfreq(SIDE))
    sought = np.maximum(frequency[:, None], frequency[None, :]) >= 1 / _LONGEST
    return float(np.exp(excess[sought].max() / 2))


def _along(spectrum: Float[np.ndarray, "s s"], step: int) -> Float[np.ndarray, "s s"]:
    """At each frequency the value `step` frequencies further out, in the same direction."""
    down, right = np.meshgrid(*2 * [np.fft.fftfreq(SIDE, 1 / SIDE)], indexing="ij")
    scale = 1 + step / np.maximum(np.hypot(down, right), 1)
    return spectrum[tuple(np.rint(part * scale).astype(int) % SIDE for part in (down, right))]
