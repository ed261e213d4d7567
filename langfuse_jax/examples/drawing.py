"""Shapes as signed distances (negative inside) on a grid of coordinates u, v, and textures, for the drawn example.

Distances are in the units of u and v, and `cover` turns them into antialiased masks. The formulas of the distances are
those of Inigo Quilez, "2D distance functions".
"""

import numpy as np


def cover(distance, pixel=1.0):
    """How much of a pixel lies inside a shape, from the signed distance of its centre to the edge."""
    return np.clip(0.5 - distance / pixel, 0, 1)


def limb(u, v, start, end, r, s=None):
    """Signed distance to a rod with round ends, of radius r at its start and s at its end."""
    (a, b), (c, d) = start, end
    t = np.clip(((u - a) * (c - a) + (v - b) * (d - b)) / ((c - a) ** 2 + (d - b) ** 2), 0, 1)
    return np.hypot(u - a - t * (c - a), v - b - t * (d - b)) - (r + t * ((r if s is None else s) - r))


def box(u, v, x, y, half_width, half_height, corner):
    """Signed distance to a rectangle with round corners."""
    a, b = abs(u - x) - half_width + corner, abs(v - y) - half_height + corner
    return np.hypot(np.maximum(a, 0), np.maximum(b, 0)) + np.minimum(np.maximum(a, b), 0) - corner


def convex(u, v, points):
    """Signed distance (exact at the edges) to a convex polygon, in either order of its corners."""
    middle = np.mean(points, axis=0)
    distance = -np.inf
    for (a, b), (c, d) in zip(points, points[1:] + points[:1], strict=True):
        normal = np.array((d - b, a - c)) / np.hypot(d - b, a - c)
        normal *= np.sign(normal @ (np.array((a, b)) - middle))
        distance = np.maximum(distance, normal[0] * (u - a) + normal[1] * (v - b))
    return distance


def fractal_noise(lattice, u, v, octaves=4):
    """Fractal value noise in about [0, 1] at coordinates (u, v), from a (256, 256) table of uniform numbers."""
    total = 0.0
    for octave in range(octaves):
        i, j = np.floor(u).astype(int), np.floor(v).astype(int)
        a, b = u - i, v - j
        a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
        corners = [[lattice[(i + p) & 255, (j + q) & 255] for q in (0, 1)] for p in (0, 1)]
        top, bottom = (row[0] * (1 - b) + row[1] * b for row in corners)
        total = total + (top * (1 - a) + bottom * a) * 0.5 ** (octave + 1)
        u, v = 2.03 * u + 17.3, 2.03 * v + 5.1  # not doubled exactly: lattice points must not coincide
    return total


def soften(image, sigma):
    """Gaussian blur over the first two axes, edges repeated."""
    reach = max(int(3 * sigma + 0.5), 1)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        padded = np.pad(image, [(reach, reach) if i == axis else (0, 0) for i in range(image.ndim)], mode="edge")
        shifted = (np.take(padded, range(k, k + image.shape[axis]), axis) for k in range(2 * reach + 1))
        image = sum(tap * part for tap, part in zip(taps, shifted, strict=True))
    return image
