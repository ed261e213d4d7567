"""The published sum of the four terms."""

from collections.abc import Mapping
from functools import reduce
from operator import add

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from langfuse_jax.losses.language import language_driven_loss, similarity_loss

PUBLISHED_WEIGHTS = {"whole": 2.0, "patch": 10.0, "similarity": 6.0, "perceptual": 10.0}


def total_loss(
    fused: Float[Array, "b d"],
    visible: Float[Array, "b d"],
    infrared: Float[Array, "b d"],
    fused_patches: Float[Array, "n d"],
    selected: Float[Array, " n"] | Bool[Array, " n"],
    *,
    text_goal: Float[Array, "*any d"],
    text_visible: Float[Array, "*any d"],
    text_infrared: Float[Array, "*any d"],
    perceptual: Float[Array, ""] | float = 0.0,
    weights: Mapping[str, float] = PUBLISHED_WEIGHTS,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """2 whole + 10 patch + 6 similarity + 10 perceptual, with the weights of LDFusion (arXiv 2402.16267).

    Args:
        fused, visible, infrared: embeddings of the whole images, (b, d).
        fused_patches: embeddings of the patches of the fused images, (patches * b, d); patch p of sample b is row
            p * b_total + b. Their source embeddings are those of the whole sources.
        selected: (patches * b,) 1 where a patch counts. A filtered patch contributes 0 and still counts in the mean.
        text_goal, text_visible, text_infrared: text embeddings, (d,) or (1, d).
        perceptual: the perceptual term, already a scalar.
        weights: factors of "whole", "patch", "similarity" and "perceptual".

    Returns:
        The scalar total and the four unweighted terms by name.

    >>> visible, infrared, goal = jnp.eye(3)[:, None]
    >>> words = {"text_visible": visible, "text_infrared": infrared, "text_goal": goal}
    >>> total, terms = total_loss(goal, visible, infrared, goal, jnp.ones(1), **words)
    >>> round(float(total), 3), {name: round(float(term), 3) for name, term in terms.items()}
    (6.0, {'whole': 0.0, 'patch': 0.0, 'similarity': 1.0, 'perceptual': 0.0})
    """
    texts = {"text_goal": text_goal, "text_visible": text_visible, "text_infrared": text_infrared}
    patches = fused_patches.shape[0] // fused.shape[0]
    per_patch = language_driven_loss(
        fused_patches, jnp.tile(visible, (patches, 1)), jnp.tile(infrared, (patches, 1)), **texts
    )
    terms = {
        "whole": language_driven_loss(fused, visible, infrared, **texts).mean(),
        "patch": (per_patch * selected).mean(),
        "similarity": similarity_loss(fused, visible, infrared).mean(),
        "perceptual": jnp.asarray(perceptual),
    }
    return reduce(add, [weights[name] * term for name, term in terms.items()]), terms
