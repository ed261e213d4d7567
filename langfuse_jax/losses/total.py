"""The weighted sum of an objective's terms, and the published one."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from langfuse_jax.losses.language import Words, language_driven_loss, similarity_loss

PUBLISHED_WEIGHTS = {"whole": 2.0, "patch": 10.0, "similarity": 6.0, "perceptual": 10.0}

Scalar = Float[Array, ""]
Term = tuple[str, float, Callable[[], Scalar]]  # a name, a weight, and what computes the unweighted value


def weighted_sum(terms: Sequence[Term]) -> tuple[Scalar, dict[str, Scalar]]:
    """The sum of weight times value, and the unweighted values by name; a term of weight 0 is not computed.

    >>> total, values = weighted_sum([("a", 2.0, lambda: jnp.ones(())), ("b", 0.0, lambda: jnp.nan)])
    >>> float(total), list(values)
    (2.0, ['a'])
    """
    values = {name: value() for name, weight, value in terms if weight}
    weighted = [weight * values[name] for name, weight, _ in terms if weight]
    return (reduce(add, weighted) if weighted else jnp.zeros(())), values


def published_terms(
    wholes: Callable[[], tuple[Float[Array, "b d"], Float[Array, "b d"], Float[Array, "b d"]]],
    patches: Callable[[], tuple[Float[Array, "b p d"], Float[Array, "b p"] | Bool[Array, "b p"]]],
    words: Words,
    perceptual: Callable[[], Scalar],
    weights: Mapping[str, float],
) -> list[Term]:
    """The four terms of LDFusion (arXiv 2402.16267), which call what they need when they are computed.

    Args:
        wholes: gives the embeddings of the whole images: fused, visible, infrared.
        patches: gives the embeddings of the patches of each fused image, and which of them count, see `total_loss`.
        words: text embeddings, (d,) or (1, d) each, or (b, d), for every sample its own.
        perceptual: gives the perceptual term.
        weights: by the name of the term; 0 for those that are missing.
    """

    def patch() -> Scalar:
        (_, visible, infrared), (fused, selected) = wholes(), patches()
        samples, count, length = fused.shape

        def of_patches(x: Float[Array | np.ndarray, "*any d"]) -> Float[Array, "*all d"]:
            # Those of a sample stay together, so that none moves to another device.
            if x.shape[:-1] != (samples,):
                return jnp.asarray(x)
            return jnp.broadcast_to(x[:, None], fused.shape).reshape(-1, length)

        losses = language_driven_loss(
            fused.reshape(-1, length),
            of_patches(visible),
            of_patches(infrared),
            Words(*(of_patches(part) for part in words)),
        )
        return (losses.reshape(samples, count) * selected).mean()

    values = {
        "whole": lambda: language_driven_loss(*wholes(), words).mean(),
        "patch": patch,
        "similarity": lambda: similarity_loss(*wholes()).mean(),
        "perceptual": perceptual,
    }
    return [(name, weights.get(name, 0.0), value) for name, value in values.items()]


def total_loss(
    fused: Float[Array, "b d"],
    visible: Float[Array, "b d"],
    infrared: Float[Array, "b d"],
    fused_patches: Float[Array, "n d"],
    selected: Float[Array, " n"] | Bool[Array, " n"],
    words: Words,
    *,
    perceptual: Float[Array, ""] | float = 0.0,
    weights: Mapping[str, float] = PUBLISHED_WEIGHTS,
) -> tuple[Scalar, dict[str, Scalar]]:
    """2 whole + 10 patch + 6 similarity + 10 perceptual, with the weights of LDFusion (arXiv 2402.16267).

    Args:
        fused, visible, infrared: embeddings of the whole images, (b, d).
        fused_patches: embeddings of the patches of the fused images, (patches * b, d); patch p of sample i is row
            p * b + i. Their source embeddings are those of the whole sources.
        selected: (patches * b,) 1 where a patch counts. A filtered patch contributes 0 and still counts in the mean.
        words: text embeddings, (d,) or (1, d) each.
        perceptual: the perceptual term, already a scalar.
        weights: factors of "whole", "patch", "similarity" and "perceptual", Python numbers; a term whose weight is 0 or
            missing is left out.

    Returns:
        The scalar total and the unweighted terms by name.

    >>> visible, infrared, goal = jnp.eye(3)[:, None]
    >>> words = Words(goal, visible, infrared)
    >>> total, terms = total_loss(goal, visible, infrared, goal, jnp.ones(1), words)
    >>> round(float(total), 3), {name: round(float(term), 3) for name, term in terms.items()}
    (6.0, {'whole': 0.0, 'patch': 0.0, 'similarity': 1.0, 'perceptual': 0.0})
    """
    wholes = fused, visible, infrared
    patches = (
        fused_patches.reshape(-1, *fused.shape).swapaxes(0, 1),
        jnp.asarray(selected).reshape(-1, len(fused)).T,
    )
    return weighted_sum(
        published_terms(lambda: wholes, lambda: patches, words, lambda: jnp.asarray(perceptual), weights)
    )
