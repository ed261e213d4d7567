"""A picture of an alignment: both images as a checkerboard, and the edges of both, before and after."""

import numpy as np
from jaxtyping import Float32

from langfuse_jax.alignment.features import doubled_angles
from langfuse_jax.alignment.geometry import resized_to, stretching
from langfuse_jax.alignment.transform import Alignment

_WIDTH = 720  # pixels of each of the four parts
_FIELDS = 9  # of the checkerboard, across
_VISIBLE, _INFRARED = (0.2, 0.8, 1.0), (1.0, 0.5, 0.1)  # colours of the edges
_GAP = 8

Gray = Float32[np.ndarray, "h w"]


def before_and_after(
    visible: Gray, infrared: Float32[np.ndarray, "h2 w2"], alignment: Alignment
) -> Float32[np.ndarray, "h3 w3 3"]:
    """Two rows of two parts, RGB in [0, 1]: the images in turn, and their edges (infrared in orange); before and after.

    The images are gray in [0, 1], of the alignment's sizes; before it, the infrared one is stretched to the other.

    >>> same = Alignment(np.eye(3), (64, 48), (64, 48))
    >>> before_and_after(np.zeros((48, 64), np.float32), np.ones((48, 64), np.float32), same).shape
    (1088, 1448, 3)
    """
    height, width = visible.shape
    size = _WIDTH, max(1, round(_WIDTH * height / width))
    stretched = stretching(alignment.infrared_size, alignment.visible_size)
    rows = []
    for one in (Alignment(stretched, alignment.visible_size, alignment.infrared_size), alignment):
        seen, laid = one.apply(visible, infrared, outside="visible")
        known = ~np.isnan(laid)
        thermal = resized_to(np.where(known, laid, laid[known].mean()), size)
        parts = resized_to(seen, size), thermal, resized_to(known.astype(np.float32), size) > 0.5
        rows.append((_checkerboard(*parts), _edges(*parts)))
    gap = np.ones((rows[0][0].shape[0], _GAP, 3), np.float32)
    upper, lower = (np.concatenate([left, gap, right], 1) for left, right in zip(*rows, strict=True))
    return np.concatenate([upper, np.ones((_GAP, upper.shape[1], 3), np.float32), lower])


def _checkerboard(visible: Gray, infrared: Gray, known: np.ndarray) -> Float32[np.ndarray, "h w 3"]:
    field = visible.shape[1] / _FIELDS
    y, x = np.indices(visible.shape)
    turn = (y // field + x // field) % 2 == 1
    mixed = np.where(turn & known, _contrasted(infrared), _contrasted(visible))
    return np.where(known, mixed, 0.5 * mixed)[..., None].repeat(3, -1).astype(np.float32)


def _edges(visible: Gray, infrared: Gray, known: np.ndarray) -> Float32[np.ndarray, "h w 3"]:
    both = [
        np.abs(doubled_angles(image))[..., None] * colour
        for image, colour in ((visible, _VISIBLE), (infrared, _INFRARED))
    ]
    both[1] *= known[..., None]
    return np.clip(both[0] + both[1], 0, 1).astype(np.float32)


def _contrasted(image: Gray) -> Gray:
    low, high = np.percentile(image, [1, 99])
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
