"""Where the training of the compact CLIP's vision tower starts: a transformer that at first computes as a convolution.

From small random numbers a vision transformer needs far more than some hundred pairs to find out that neighbouring
patches belong together. Here positions and attention are set so that each head looks one patch to its side (an idea of
structured initialisation: Zheng et al., 2024, arXiv 2404.01139); training may leave that again.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from langfuse_jax.models.clip import VisionTower

# By trial: so strong that no place has more of a head's attention than its neighbour, whatever the patches show.
_POSITION, _SHARPNESS, _CONTENT = 0.35, 1.8, 0.3
_OFFSETS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1))


def whitening_patches(patch: int, width: int) -> Float[np.ndarray, "p p 3 w"]:
    """First patch embedding: the lowest `width` cosines, amplified as natural images fade; zeros beyond patch * patch.

    Drawn at random, it would see little but the mean brightness of a patch, and stripes, noise and blur hardly at all.
    """
    frequency = np.arange(patch)
    cosines = np.cos(np.pi * (frequency[None] + 0.5) * frequency[:, None] / patch) * np.sqrt(2 / patch)
    cosines[0] /= np.sqrt(2)
    radius = np.hypot(frequency[:, None], frequency)
    kernel = np.einsum("uy,vx,uv->yxuv", cosines, cosines, np.maximum(radius, 0.3) / 3 / 3).reshape(patch, patch, -1)
    kernel = kernel[..., np.argsort(radius.ravel(), kind="stable")[:width]]
    kernel = np.pad(kernel, ((0, 0), (0, 0), (0, width - kernel.shape[-1])))
    return np.repeat(kernel[:, :, None], 3, axis=2)


def convolutional_start(params: dict[str, Any], vision: VisionTower) -> dict[str, Any]:
    """`params` of a vision tower with whitening patches and heads that look at one neighbour each.

    The last channels of every token hold nothing but waves of its row and column, so few that the nearest patches are
    told apart and no wave is finer than the grid. Queries and keys compare these, the query's moved by the head's
    offset in _OFFSETS (in turn, where there are more heads), besides _CONTENT of what was drawn for the rest. Values
    and outputs stay as drawn, so that head by head another matrix mixes another neighbour: a 3 x 3 convolution.
    """
    side, width = vision.image_size // vision.patch_size, vision.width
    head = width // vision.heads
    waves = min(head // 4, side // 2)  # of rows and of columns, a cosine and a sine each
    count = 4 * waves
    rows, columns = np.mgrid[:side, :side].reshape(2, -1)
    angle = np.pi * np.arange(1, waves + 1) / side
    turns = np.concatenate([rows[:, None] * angle, columns[:, None] * angle], axis=1)
    position = np.array(params["position_embedding"])
    position[1:, width - count :] += _POSITION * np.stack([np.cos(turns), np.sin(turns)], -1).reshape(side**2, count)
    patches = whitening_patches(vision.patch_size, width)
    patches[..., width - count :] = 0

    compared = {"query": np.zeros((width, width)), "key": np.zeros((width, width))}
    for i in range(vision.heads):
        place = slice(width - count, width), slice(i * head, i * head + count)
        compared["query"][place] = _SHARPNESS * _moved(angle, *_OFFSETS[i % len(_OFFSETS)])
        compared["key"][place] = _SHARPNESS * np.eye(count)

    started = dict(params, patch_embedding=_float32(patches), position_embedding=_float32(position))
    for name in (f"block_{i}" for i in range(vision.layers)):
        attention = dict(params[name]["attention"])
        for part, waves_of_part in compared.items():
            kernel = _CONTENT * np.array(attention[part]["kernel"]) + waves_of_part
            attention[part] = dict(attention[part], kernel=_float32(kernel))
        started[name] = dict(params[name], attention=attention)
    return started


def _moved(angle: Float[np.ndarray, " w"], down: int, right: int) -> Float[np.ndarray, "n n"]:
    """The matrix that turns the waves of a place, from the right, into those of the place `down` and `right` of it."""
    turn = np.concatenate([down * angle, right * angle])
    matrix = np.zeros((2 * len(turn), 2 * len(turn)))
    for i, (cosine, sine) in enumerate(zip(np.cos(turn), np.sin(turn), strict=True)):
        matrix[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[cosine, sine], [-sine, cosine]]
    return matrix


def _float32(x: np.ndarray) -> Float[Array, "..."]:
    return jnp.asarray(x, jnp.float32)
