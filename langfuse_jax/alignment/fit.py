"""One transform for many matches: a robust similarity, then what of an affinity or homography the matches insist on."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from langfuse_jax.alignment.geometry import Matrix, Size, moved
from langfuse_jax.alignment.opencv import opencv
from langfuse_jax.alignment.patches import Matches

INLIER = 3.0  # pixels that an inlier may be off
_NOISE = 2.0  # pixels: scale of the Cauchy loss
_LEAST_MATCHES = 8
_ITERATIONS = 30
# Pixels, at half the image's width from its middle, by which rigs usually differ from a similarity: the standard
# deviations of shear and aspect, and of perspective. Without them the corners of a homography follow the noise.
_DEPARTURES = {"similarity": (1e-6, 1e-6), "affine": (1.5, 1e-6), "homography": (1.5, 1.0)}


class Fit(NamedTuple):
    """A transform from infrared to visible pixels, and how far each match is from it, in infrared pixels."""

    matrix: Matrix
    errors: Float64[np.ndarray, " n"]

    @property
    def inliers(self) -> Bool[np.ndarray, " n"]:
        return self.errors < INLIER


def fit(matches: Matches, model: str, size: Size) -> Fit | None:
    """The transform of a model ("similarity", "affine" or "homography") that most matches agree on; None without one.

    RANSAC finds the similarity; from there the most probable transform is found under a Cauchy loss of 2 pixels and a
    prior: shear and perspective are small. `size` is the infrared image's (width, height).

    >>> places = np.stack(np.meshgrid(np.arange(0.0, 320, 16), np.arange(0.0, 240, 16)), -1).reshape(-1, 2)
    >>> found = fit(Matches(places, places * 1.1 + 5), "similarity", (320, 240))
    >>> bool(np.allclose(found.matrix, [[1.1, 0, 5], [0, 1.1, 5], [0, 0, 1]], atol=1e-3))
    True
    """
    if len(matches.infrared) < _LEAST_MATCHES:
        return None
    source, target = matches.infrared.astype(np.float32), matches.visible.astype(np.float32)
    spans = [float(np.linalg.norm(np.ptp(places, axis=0))) for places in (source, target)]
    tolerance = max(INLIER * spans[1] / max(spans[0], 1.0), 1e-3)  # in visible pixels
    cv2 = opencv()
    partial, _ = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=tolerance, maxIters=5000
    )
    if partial is None or abs(np.linalg.det(partial[:, :2])) < 1e-6:
        return None
    similarity = np.vstack([partial, [0, 0, 1]]).astype(np.float64)
    # From here on visible places are seen in infrared pixels, where a similarity is the identity.
    places = moved(np.linalg.inv(similarity), matches.visible)
    correction = _most_probable(matches.infrared, places, size, _DEPARTURES[model])
    errors = np.linalg.norm(moved(correction, matches.infrared) - places, axis=1)
    matrix = similarity @ correction
    return Fit(matrix / matrix[2, 2], errors)


def _most_probable(
    source: Float64[np.ndarray, "n 2"],
    target: Float64[np.ndarray, "n 2"],
    size: Size,
    departures: tuple[float, float],
) -> Matrix:
    """The homography near the identity from `source` to `target`, by reweighted Gauss-Newton steps."""
    width, height = size
    unit = width / 2  # pixels
    normal = np.array([[1 / unit, 0, -1 + 0.5 / unit], [0, 1 / unit, (0.5 - height / 2) / unit], [0, 0, 1]])
    x, y = moved(normal, source).T
    there = moved(normal, target)
    prior = unit / np.array([np.inf] * 4 + [departures[0]] * 2 + [departures[1]] * 2)
    values = np.zeros(8)
    for _ in range(_ITERATIONS):
        matrix = _homography(values)
        homogeneous = np.stack([x, y, np.ones_like(x)], -1) @ matrix.T
        z = homogeneous[:, 2]
        at = homogeneous[:, :2] / z[:, None]
        residual = unit * (at - there)
        slopes = unit * _slopes(x, y, z, at)
        weight = 1 / (1 + (residual**2).sum(1) / _NOISE**2) / _NOISE**2
        weighted = slopes * weight[:, None, None]
        curvature = np.einsum("nki,nkj->ij", weighted, slopes) + np.diag(prior**2)
        slope = np.einsum("nki,nk->i", weighted, residual) + prior**2 * values
        step = np.linalg.solve(curvature + 1e-9 * np.eye(8), -slope)
        values = values + step
        if np.abs(step).max() < 1e-9:
            break
    return np.linalg.inv(normal) @ _homography(values) @ normal


def _homography(values: Float64[np.ndarray, "8"]) -> Matrix:
    """Scale and rotation, shift, then aspect and shear, then perspective: all 0 for the identity."""
    grow, turn, right, down, aspect, shear, g, h = values
    return np.array([[1 + grow + aspect, shear - turn, right], [shear + turn, 1 + grow - aspect, down], [g, h, 1.0]])


def _slopes(
    x: Float64[np.ndarray, " n"],
    y: Float64[np.ndarray, " n"],
    z: Float64[np.ndarray, " n"],
    at: Float64[np.ndarray, "n 2"],
) -> Float64[np.ndarray, "n 2 8"]:
    """Derivatives of the places `at` by the eight values of `_homography`."""
    zero, one = np.zeros_like(x), np.ones_like(x)
    across = [x, -y, one, zero, x, y, -at[:, 0] * x, -at[:, 0] * y]
    down = [y, x, zero, one, -y, x, -at[:, 1] * x, -at[:, 1] * y]
    return np.stack([np.stack(across, -1), np.stack(down, -1)], 1) / z[:, None, None]
