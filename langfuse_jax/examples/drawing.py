"""Shapes as signed distances (negative inside) on a grid of coordinates u, v, and textures, for the drawn example.

Distances are in the units of u and v, and `cover` turns them into antialiased masks. The formulas of the distances are
those of Inigo Quilez, "2D distance functions".
"""

from functools import reduce

import numpy as np
from jaxtyping import Float

Grid = Float[np.ndarray, "..."]
Scalar = int | float
Point = tuple[Scalar, Scalar]


def cover(distance: Grid, pixel: Grid | Scalar = 1.0) -> Grid:
    """How much of a pixel lies inside a shape, from the signed distance of its centre to the edge."""
    return np.clip(0.5 - distance / pixel, 0, 1)


def limb(u: Grid, v: Grid, start: Point, end: Point, r: Scalar, s: Scalar | None = None) -> Grid:
    """Signed distance to a rod with round ends, of radius r at its start and s at its end."""
    (a, b), (c, d) = start, end
    t = np.clip(((u - a) * (c - a) + (v - b) * (d - b)) / ((c - a) ** 2 + (d - b) ** 2), 0, 1)
    return np.hypot(u - a - t * (c - a), v - b - t * (d - b)) - (r + t * ((r if s is None else s) - r))


def box(u: Grid, v: Grid, x: Scalar, y: Scalar, half_width: Scalar, half_height: Scalar, corner: Scalar) -> Grid:
    """Signed distance to a rectangle with round corners."""
    a, b = abs(u - x) - half_width + corner, abs(v - y) - half_height + corner
    return np.hypot(np.maximum(a, 0), np.maximum(b, 0)) + np.minimum(np.maximum(a, b), 0) - corner


def convex(u: Grid, v: Grid, points: list[Point]) -> Grid:
    """Signed distance (exact at the edges) to a convex polygon, in either order of its corners."""
    middle = np.mean(points, axis=0)
    edges = []
    for (a, b), (c, d) in zip(points, points[1:] + points[:1], strict=True):
        normal = np.array((d - b, a - c)) / np.hypot(d - b, a - c)
        normal *= np.sign(normal @ (np.array((a, b)) - middle))
        edges.append(normal[0] * (u - a) + normal[1] * (v - b))
    return np.max(edges, axis=0)


def fractal_noise(lattice: Float[np.ndarray, "256 256"], u: Grid, v: Grid, octaves: int = 4) -> Grid:
    """Fractal value noise in about [0, 1] at coordinates (u, v), from a (256, 256) table of uniform numbers."""
    total = np.zeros_like(u)
    for octave in range(octaves):
        i, j = np.floor(u).astype(int), np.floor(v).astype(int)
        a, b = u - i, v - j
        a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
        corners = [[lattice[(i + p) & 255, (j + q) & 255] for q in (0, 1)] for p in (0, 1)]
        top, bottom = (row[0] * (1 - b) + row[1] * b for row in corners)
        total = total + (top * (1 - a) + bottom * a) * 0.5 ** (octave + 1)
        u, v = 2.03 * u + 17.3, 2.03 * v + 5.1  # not doubled exactly: lattice points must not coincide
    return total


def soften(image: Float[np.ndarray, "h w *c"], sigma: float) -> Float[np.ndarray, "h w *c"]:
    """Gaussian blur over the first two axes, edges repeated."""
    reach = max(int(3 * sigma + 0.5), 1)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        padded = np.pad(image, [(reach, reach) if i == axis else (0, 0) for i in range(image.ndim)], mode="edge")
        shifted = (np.take(padded, range(k, k + image.shape[axis]), axis) for k in range(2 * reach + 1))
        image = reduce(np.add, (tap * part for tap, part in zip(taps, shifted, strict=True)))
    return image
