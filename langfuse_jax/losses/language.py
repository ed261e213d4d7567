"""The objective written in words: directions in CLIP's joint space (LDFusion, arXiv 2402.16267)."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Squared length below which a vector has no direction: its cosine is 0 and so is its gradient.
_NO_LENGTH = 1e-14


class Words(NamedTuple):
    """Text embeddings of the goal and of what the two sources are: what steers training and what is scored.

    Attributes:
        goal, visible, infrared: vectors of any length, (d,) or (1, d), or (b, d), for each sample of a batch its own.

    >>> words = Words(*jnp.eye(3))
    >>> words.goal.tolist(), words._fields
    ([1.0, 0.0, 0.0], ('goal', 'visible', 'infrared'))
    """

    goal: Float[Array | np.ndarray, "*any d"]
    visible: Float[Array | np.ndarray, "*any d"]
    infrared: Float[Array | np.ndarray, "*any d"]


def normalised(x: Float[Array | np.ndarray, "*any d"]) -> Float[Array, "*any d"]:
    """Vectors at unit length; a vector without length stays 0, and so does its gradient.

    >>> normalised(jnp.array([[0.0, 2.0], [0.0, 0.0]])).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    has_direction = squared > _NO_LENGTH
    # The inner `where` keeps the gradient of the branch not taken finite.
    return jnp.where(has_direction, x / jnp.sqrt(jnp.where(has_direction, squared, 1.0)), 0.0)


def _distance(a: Float[Array, "... d"], b: Float[Array, "... d"]) -> Float[Array, "..."]:
    """(1 - cos(a, b)) / 2 along the last axis; 1/2 where either has no length."""
    return 0.5 * (1.0 - jnp.sum(normalised(a) * normalised(b), axis=-1))


def language_driven_loss(
    fused: Float[Array, "b d"],
    visible: Float[Array, "b d"],
    infrared: Float[Array, "b d"],
    words: Words,
) -> Float[Array, " b"]:
    """How far the step from each source to the fused image is from the step from its words to the goal's words.

    With every embedding normalised to unit length here, per sample::

        1/2 (1 - cos(fused - visible, words.goal - words.visible))
        + 1/2 (1 - cos(fused - infrared, words.goal - words.infrared))

    Args:
        fused, visible, infrared: image embeddings of any length, (b, d).
        words: text embeddings of any length.

    Returns:
        (b,) losses in [0, 2]. A zero direction (fused equal to a source, goal words equal to a source's words)
        makes its half 1/2 with gradient zero.

    From the language-driven loss of LDFusion (arXiv 2402.16267).

    >>> import jax.numpy as jnp
    >>> visible, infrared, goal = jnp.eye(3)
    >>> words = Words(goal, visible, infrared)
    >>> language_driven_loss(goal[None], visible[None], infrared[None], words).round(6).tolist()
    [0.0]
    """
    fused, goal = normalised(fused), normalised(words.goal)
    from_visible = _distance(fused - normalised(visible), goal - normalised(words.visible))
    from_infrared = _distance(fused - normalised(infrared), goal - normalised(words.infrared))
    return from_visible + from_infrared


def similarity_loss(
    fused: Float[Array, "b d"], visible: Float[Array, "b d"], infrared: Float[Array, "b d"]
) -> Float[Array, " b"]:
    """Distance of the fused embedding to both sources: 1/2 (1 - cos(f, v)) + 1/2 (1 - cos(f, i)), per sample.

    Args:
        fused, visible, infrared: image embeddings of any length, (b, d).

    Returns:
        (b,) losses in [0, 2]; the regularisation of LDFusion (arXiv 2402.16267).

    >>> visible, infrared = jnp.eye(2)[:, None]
    >>> similarity_loss(visible, visible, infrared).tolist()
    [0.5]
    """
    return _distance(fused, visible) + _distance(fused, infrared)
