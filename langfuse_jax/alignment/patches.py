"""Small patches of an infrared image, found in the visible one near where a first transform expects them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int

from langfuse_jax.alignment.features import doubled_angles, vertex
from langfuse_jax.alignment.geometry import Matrix, moved
from langfuse_jax.alignment.opencv import opencv

_REACH = 24  # pixels from a patch's middle to its sides
_BACK = 2.5  # pixels that a match may be off on the way back
_LEAST = 0.2  # correlation of a match

_Features = Float32[np.ndarray, "_ _ 2"]


class Matches(NamedTuple):
    """Places (x, y) in an infrared image, and where they are in the visible one."""

    infrared: Float64[np.ndarray, "n 2"]
    visible: Float64[np.ndarray, "n 2"]


def match_patches(
    visible: Float32[np.ndarray, "h w"],
    infrared: Float32[np.ndarray, "h2 w2"],
    matrix: Matrix,
    *,
    search: int,
    spacing: int,
) -> Matches:
    """Patches of an infrared image found within `search` of its pixels of where `matrix` sees them in the visible one.

    Patches are 49x49 pixels of `doubled_angles`, `spacing` pixels apart, compared by normalised correlation. A match
    counts if the way back leads to within 2.5 pixels of where it began.
    """
    cv2 = opencv()
    height, width = infrared.shape
    inverse = np.linalg.inv(matrix)
    seen = cv2.warpPerspective(visible, inverse, (width, height), flags=cv2.INTER_LINEAR)
    known = cv2.warpPerspective(np.ones_like(visible), inverse, (width, height)) > 0.99
    ours, theirs = (_channels(image) for image in (infrared, seen))
    y, x = (np.arange(_REACH, side - _REACH, spacing) for side in (height, width))
    middles = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    middles = middles[known[middles[:, 1], middles[:, 0]]]
    there, forth = _find(ours, theirs, middles, search)
    middles, forth = middles[there], forth[there]
    whole = forth.round().astype(int)
    there, back = _find(theirs, ours, whole, search)
    there &= np.hypot(*(back - middles + forth - whole).T) <= _BACK
    return Matches(middles[there].astype(np.float64), moved(matrix, forth[there]))


def _channels(image: Float32[np.ndarray, "h w"]) -> _Features:
    features = doubled_angles(image)
    return np.stack([features.real, features.imag], -1)


def _find(
    template: _Features, image: _Features, middles: Int[np.ndarray, "n 2"], search: int
) -> tuple[Bool[np.ndarray, " n"], Float64[np.ndarray, "n 2"]]:
    """Which patches of `template`, by their middles (x, y), are found in `image`, and where, to a part of a pixel."""
    cv2 = opencv()
    height, width = template.shape[:2]
    there, places = np.zeros(len(middles), bool), np.zeros((len(middles), 2))
    for number, (x, y) in enumerate(middles.tolist()):
        if not (_REACH <= x < width - _REACH and _REACH <= y < height - _REACH):
            continue
        patch = template[y - _REACH : y + _REACH + 1, x - _REACH : x + _REACH + 1]
        top, left = max(0, y - _REACH - search), max(0, x - _REACH - search)
        window = image[top : y + _REACH + search + 1, left : x + _REACH + search + 1]
        scores = cv2.matchTemplate(window, patch, cv2.TM_CCORR_NORMED)
        row, column = divmod(int(scores.argmax()), scores.shape[1])
        inside = 0 < row < scores.shape[0] - 1 and 0 < column < scores.shape[1] - 1
        if inside and scores[row, column] >= _LEAST:
            around = scores[row - 1 : row + 2, column - 1 : column + 2]
            there[number] = True
            places[number] = left + column + _REACH + vertex(around[1]), top + row + _REACH + vertex(around[:, 1])
    return there, places
