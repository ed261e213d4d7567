"""How well fused images say what the goal's words say, in CLIP's joint space of images and texts.

These are scores of one CLIP and three sentences: compare them only where both are the same.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, Real

from langfuse_jax.clip.pretrained import Clip
from langfuse_jax.clip.words import TextEmbeddings
from langfuse_jax.losses.language import Words, language_driven_loss, normalised
from langfuse_jax.models.clip import VisionTower


class LanguageScore(NamedTuple):
    """A column of `language_scores`: its title, its range, and which direction is better (None: neither)."""

    title: str
    unit: str
    higher_is_better: bool | None


LANGUAGE_SCORES = {
    "LDL": LanguageScore("language-driven loss", "0 to 2", False),
    "cos_goal": LanguageScore("cosine of the fused image and the goal's words", "-1 to 1", True),
    "cos_visible": LanguageScore("cosine of the fused image and the visible image's words", "-1 to 1", None),
    "cos_infrared": LanguageScore("cosine of the fused image and the infrared image's words", "-1 to 1", None),
}


def language_scores(
    fused: Float[Array, "b d"],
    visible: Float[Array, "b d"],
    infrared: Float[Array, "b d"],
    words: Words,
) -> dict[str, Float[Array, " b"]]:
    """Language scores of fused images from embeddings of any length; with every embedding at unit length::

        LDL           1/2 (1 - cos(fused - visible, words.goal - words.visible))
                      + 1/2 (1 - cos(fused - infrared, words.goal - words.infrared))
        cos_goal      fused . words.goal
        cos_visible   fused . words.visible
        cos_infrared  fused . words.infrared

    LDL, the language-driven loss of LDFusion (arXiv 2402.16267), is in [0, 2], lower is better: 0 where the fused image
    differs from each source as the goal's words differ from the source's words, 1 where the two have nothing to do with
    each other (or the fused image is the source). cos_goal is in [-1, 1], higher is better. The cosines to the words of
    the sources are in [-1, 1] and neither direction is better: they tell which source the fused image resembles.

    Args:
        fused, visible, infrared: image embeddings, (b, d); see `embed_images`.
        words: text embeddings, (d,) or (1, d) each.

    Returns:
        (b,) scores by name, in the order of `LANGUAGE_SCORES`. A zero vector has cosine 0.

    >>> visible, infrared, goal = jnp.eye(3)
    >>> scores = language_scores(goal[None], visible[None], infrared[None], Words(goal, visible, infrared))
    >>> {name: score.round(3).item() for name, score in scores.items()}
    {'LDL': 0.0, 'cos_goal': 1.0, 'cos_visible': 0.0, 'cos_infrared': 0.0}
    """
    direction = normalised(fused)
    return {
        "LDL": language_driven_loss(fused, visible, infrared, words),
        **{
            f"cos_{role}": jnp.matmul(direction, normalised(text).reshape(-1), precision="highest")
            for role, text in words._asdict().items()
        },
    }


def score_language(clip: Clip, text: TextEmbeddings) -> Callable[..., dict[str, Float[Array, " b"]]]:
    """The function (fused, visible, infrared, sizes) -> `language_scores` of gray images in 0-255 on canvases.

    Example::

        clip = Clip.load()
        scores = score_language(clip, embed(clip))(fused, visible, infrared, np.int32([[480, 640]]))
    """
    compiled = jax.jit(language_scores)

    def scores(
        fused: Real[np.ndarray, "b h w"],
        visible: Real[np.ndarray, "b h w"],
        infrared: Real[np.ndarray, "b h w"],
        sizes: Int32[np.ndarray, "b 2"],
    ) -> dict[str, Float[Array, " b"]]:
        images, rows = np.concatenate([fused, visible, infrared]), np.concatenate([sizes] * 3)
        embeddings = embed_images(clip.vision, clip.params["vision"], images, rows)
        return compiled(*embeddings.reshape(3, len(fused), -1), text.words)

    return scores


@partial(jax.jit, static_argnums=0)
def embed_images(
    vision: VisionTower, params: dict, images: Real[Array, "b h w"], sizes: Int32[Array, "b 2"] | None = None
) -> Float[Array, "b d"]:
    """Embeddings, not normalised, of gray images in 0-255 as the language-driven loss sees whole images.

    Each is resized to the tower's square, bilinear without antialiasing, and repeated as gray RGB. `sizes` are the true
    heights and widths of images that lie in the top-left corners of larger canvases; what is beyond has no effect.

    >>> from langfuse_jax import Clip
    >>> clip = Clip.load()
    >>> embed_images(clip.vision, clip.params["vision"], jnp.zeros((1, 40, 60))).shape == (1, clip.vision.embedding)
    True
    """
    b, h, w = images.shape
    if sizes is None:
        sizes = jnp.tile(jnp.asarray([[h, w]], jnp.int32), (b, 1))
    rows = jax.vmap(partial(_sampling, vision.image_size, h))(sizes[:, 0])
    columns = jax.vmap(partial(_sampling, vision.image_size, w))(sizes[:, 1])
    squares = jnp.matmul(rows, images / 255.0, precision="highest")
    squares = jnp.matmul(squares, columns.swapaxes(1, 2), precision="highest")
    return cast(Array, vision.apply({"params": params}, squares[..., None]))


def _sampling(side: int, length: int, true_length: Int[Array, ""]) -> Float[Array, "side length"]:
    """(side, length) weights that resize the first `true_length` of `length` pixels; half-pixel centres."""
    at = (jnp.arange(side) + 0.5) * (true_length / side) - 0.5
    at = jnp.clip(at, 0, true_length - 1)
    return jnp.maximum(0.0, 1.0 - jnp.abs(at[:, None] - jnp.arange(length)))
