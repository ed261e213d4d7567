"""Where, how large and how far turned one image lies in another: every similarity of a grid, by masked correlation."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Complex64, Float32
from scipy import fft

from langfuse_jax.alignment.features import outstanding_angles
from langfuse_jax.alignment.geometry import Image, Matrix, corners, moved
from langfuse_jax.alignment.opencv import opencv

_LEAST_OVERLAP = 0.45  # of the smaller image
_TURNS = np.deg2rad(np.arange(-6, 6.1, 2))
_STEP = 1.04  # between scales
_APART = 6  # pixels from a peak, within which another is the same
_PEAKS = 2  # kept of each surface


class Start(NamedTuple):
    """A similarity from infrared to visible pixels, and how well the images correlate there, from -1 to 1."""

    matrix: Matrix
    score: float


def find_similarities(
    visible: Sequence[Image], infrared: Sequence[Image], *, scales: tuple[float, float], count: int = 5
) -> list[Start]:
    """The `count` best similarities that lay infrared images over visible ones, of some 200 pixels a side.

    The pairs are of one rig: all visible images have one size and all infrared ones too, and their correlations are
    averaged. Rotations within 6 degrees are tried, `scales` (of infrared pixels) from the least to the greatest by
    steps of 4%, and every shift that keeps 45% of the smaller image. What is correlated are `outstanding_angles`,
    where both images are known (Padfield, Masked Object Registration in the Fourier Domain, 2012).
    """
    cv2 = opencv()
    shape = infrared[0].shape
    surfaces = _Surfaces([outstanding_angles(image) for image in visible], shape, scales[1])
    features = [outstanding_angles(image) for image in infrared]
    found = []
    steps = int(np.ceil(np.log(scales[1] / scales[0]) / np.log(_STEP)))
    for scale in np.minimum(scales[0] * _STEP ** np.arange(steps + 1), scales[1]):
        for turn in _TURNS:
            warp, size = _centred(shape, scale, turn)
            # The features are turned in place of the images: doubled angles turn twice as far.
            turned = [
                np.complex64(np.exp(2j * turn)) * _as_complex(cv2.warpAffine(_as_real(one), warp[:2], size))
                for one in features
            ]
            inside = cv2.warpAffine(np.ones(shape, np.float32), warp[:2], size) > 0.99
            for score, (x, y) in surfaces.peaks(turned, inside):
                found.append(Start(np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]]) @ warp, score))
    return _distinct(sorted(found, key=lambda start: -start.score), shape, count)


def _as_real(values: Complex64[np.ndarray, "a b"]) -> Float32[np.ndarray, "a b 2"]:
    return values.view(np.float32).reshape(*values.shape, 2)


def _as_complex(values: Float32[np.ndarray, "a b 2"]) -> Complex64[np.ndarray, "a b"]:
    return values.view(np.complex64)[..., 0]


def _distinct(starts: Sequence[Start], shape: tuple[int, int], count: int) -> list[Start]:
    """The first `count` of `starts` that do not lay an image of `shape` within some pixels of an earlier one."""
    kept: list[Start] = []
    places: list[np.ndarray] = []
    for start in starts:
        place = moved(start.matrix, corners(shape[1], shape[0]))
        if all(np.abs(place - other).max() > _APART for other in places):
            kept.append(start)
            places.append(place)
        if len(kept) == count:
            break
    return kept


def _centred(shape: tuple[int, int], scale: float, turn: float) -> tuple[Matrix, tuple[int, int]]:
    """The similarity about the middle that fills a canvas, and that canvas's (width, height)."""
    height, width = shape
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    size = int(np.ceil(abs(cos) * width + abs(sin) * height)), int(np.ceil(abs(sin) * width + abs(cos) * height))
    turned = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    middle = turned @ [(width - 1) / 2, (height - 1) / 2, 1]
    turned[:2, 2] = (np.array(size) - 1) / 2 - middle[:2]
    return turned, size


class _Surfaces:
    """Correlations with the visible images, which are transformed once."""

    def __init__(self, features: Sequence[Complex64[np.ndarray, "h w"]], other: tuple[int, int], scale: float):
        h, w = features[0].shape
        room = int(np.ceil(scale * np.hypot(*other))) + 1
        self._size = h, w
        self._padded = fft.next_fast_len(h + room), fft.next_fast_len(w + room)
        self._features = [fft.fft2(one, self._padded) for one in features]
        self._power = [fft.rfft2(np.abs(one) ** 2, self._padded) for one in features]
        self._ones = fft.rfft2(np.ones((h, w), np.float32), self._padded)

    def peaks(
        self, turned: Sequence[Complex64[np.ndarray, "a b"]], inside: Bool[np.ndarray, "a b"]
    ) -> list[tuple[float, tuple[int, int]]]:
        """The best correlations and their shifts (x, y), of turned infrared features, over all pairs."""
        mask = np.conj(fft.rfft2(inside.astype(np.float32), self._padded))
        overlap = fft.irfft2(self._ones * mask, self._padded)
        score = np.zeros(self._padded, np.float32)
        for one, features, power in zip(turned, self._features, self._power, strict=True):
            known = np.where(inside, one, 0)
            across = fft.ifft2(features * np.conj(fft.fft2(known, self._padded))).real
            own = fft.irfft2(power * mask, self._padded)
            theirs = fft.irfft2(self._ones * np.conj(fft.rfft2(np.abs(known) ** 2, self._padded)), self._padded)
            score += across / np.sqrt(np.maximum(own * theirs, 1e-6)) / len(turned)
        score[overlap < _LEAST_OVERLAP * min(inside.sum(), self._size[0] * self._size[1])] = -1
        found = []
        for _ in range(_PEAKS):
            y, x = (int(at) for at in np.unravel_index(score.argmax(), score.shape))
            found.append((float(score[y, x]), (self._signed(x, 1), self._signed(y, 0))))
            rows, columns = (
                np.arange(at - _APART, at + _APART + 1) % n for at, n in zip((y, x), score.shape, strict=True)
            )
            score[np.ix_(rows, columns)] = -1
        return found

    def _signed(self, at: int, axis: int) -> int:
        return at if at < self._size[axis] else at - self._padded[axis]
