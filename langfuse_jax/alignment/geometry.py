"""3x3 matrices between the pixels of images, whose centres have whole coordinates (x, y)."""

import numpy as np
from jaxtyping import Float32, Float64

from langfuse_jax.alignment.opencv import opencv

Matrix = Float64[np.ndarray, "3 3"]
Image = Float32[np.ndarray, "_ _"]
Size = tuple[int, int]  # width, height


def stretching(size: Size, new_size: Size) -> Matrix:
    """From the pixels of an image of `size` (width, height) to those of the same image resized: its outer edges stay.

    >>> stretching((3, 4), (6, 8)) @ [0.0, 0.0, 1.0]
    array([0.5, 0.5, 1. ])
    """
    across, down = new_size[0] / size[0], new_size[1] / size[1]
    return np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])


def moved(matrix: Matrix, points: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    """Where `matrix` sends points (x, y).

    >>> moved(stretching((2, 2), (1, 1)), np.array([[3.0, 5.0]])).tolist()
    [[1.25, 2.25]]
    """
    homogeneous = points @ matrix[:, :2].T + matrix[:, 2]
    return homogeneous[:, :2] / homogeneous[:, 2:]


def corners(width: int, height: int) -> Float64[np.ndarray, "4 2"]:
    """The centres of an image's four outermost pixels, going round.

    >>> corners(3, 2).tolist()
    [[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]]
    """
    right, down = width - 1.0, height - 1.0
    return np.array([[0, 0], [right, 0], [right, down], [0, down]])


def local_scale(matrix: Matrix, width: int, height: int) -> float:
    """How many pixels one is across, in the middle of an image of that size, after `matrix`; negative if mirrored.

    >>> round(local_scale(stretching((2, 2), (6, 6)), 64, 48), 6)
    3.0
    """
    x, y = (width - 1) / 2, (height - 1) / 2
    at, right, down = moved(matrix, np.array([[x, y], [x + 1, y], [x, y + 1]]))
    area = float(np.linalg.det(np.stack([right - at, down - at])))
    return float(np.sign(area) * np.sqrt(abs(area)))


def turned(matrix: Matrix, width: int, height: int) -> float:
    """By how many degrees `matrix` turns the middle of an image of that size, clockwise on the screen.

    >>> turned(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), 64, 48)
    90.0
    """
    x, y = (width - 1) / 2, (height - 1) / 2
    at, right = moved(matrix, np.array([[x, y], [x + 1, y]]))
    return float(np.rad2deg(np.arctan2(*(right - at)[::-1])))


def resized(image: Image, width: int) -> tuple[Image, Matrix]:
    """An image with as many pixels as one of 4:3 that is `width` wide, and the matrix to its pixels.

    >>> small, matrix = resized(np.ones((60, 80), np.float32), 40)
    >>> small.shape, matrix[0].tolist()
    ((30, 40), [0.5, 0.0, -0.25])
    """
    size = image.shape[1], image.shape[0]
    scale = width * np.sqrt(0.75 / (size[0] * size[1]))
    new_size = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return resized_to(image, new_size), stretching(size, new_size)


def resized_to(image: Image, size: Size) -> Image:
    """An image in `size` (width, height): averaged where that is smaller, else bilinear.

    >>> resized_to(np.ones((6, 8), np.float32), (4, 3)).shape
    (3, 4)
    """
    cv2 = opencv()
    smaller = size[0] * size[1] < image.shape[0] * image.shape[1]
    found: Image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return found
