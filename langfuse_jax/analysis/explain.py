"""What the words make of images: where the language-driven loss is, in CLIP's space and in a picture."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from langfuse_jax.clip.pretrained import Clip
from langfuse_jax.clip.words import TextEmbeddings, embed
from langfuse_jax.losses import informative, language_driven_loss
from langfuse_jax.losses.language import normalised

Gray = Float32[np.ndarray, "h w"]


def embed_gray(clip: Clip, images: Sequence[Float32[np.ndarray, "_ _"]]) -> Float32[np.ndarray, "n d"]:
    """Unit embeddings of gray images in [0, 1], each of any size.

    >>> clip = Clip.load()
    >>> embed_gray(clip, [np.full((40, 60), 0.5, np.float32)]).shape == (1, clip.vision.embedding)
    True
    """
    rows = [clip.encode_image(image[None, :, :, None])[0] for image in images]
    return np.asarray(normalised(jnp.stack(rows)))


def text_plane(texts: TextEmbeddings) -> Float[np.ndarray, "2 d"]:
    """An orthonormal basis of the plane through the three sentences: the directions in which the loss pulls lie in it.

    Its first axis runs along infrared minus visible, its second towards the goal.

    >>> at = text_plane(embed(Clip.load()))
    >>> np.round(at @ at.T, 6).tolist() == np.eye(2).tolist()
    True
    """
    across = texts.infrared - texts.visible
    across = across / np.linalg.norm(across)
    up = texts.goal - texts.visible
    up = up - (up @ across) * across
    return np.stack([across, up / np.linalg.norm(up)])


def loss_map(
    clip: Clip,
    texts: TextEmbeddings,
    fused: Gray,
    visible: Gray,
    infrared: Gray,
    *,
    side: int = 96,
    stride: int = 32,
    threshold: float = 6.0,
) -> Float[np.ndarray, "rows columns"]:
    """The patch term of the language-driven loss on a grid of square windows, in [0, 2].

    Args:
        fused, visible, infrared: gray images in [0, 1] of one size.
        side, stride: of the windows, in pixels; window (0, 0) is in the upper left corner.
        threshold: bits of entropy that the window must exceed in both sources; where not, training leaves the patch out
            and the map has NaN.

    Returns:
        The losses. As in LDFusion (arXiv 2402.16267) a window's embedding stands against those of the whole sources.

    Example::

        losses = loss_map(clip, embed(clip), fused, luma, infrared)
        float(np.nanmean(losses))
    """
    height, width = fused.shape
    places = [(y, x) for y in range(0, height - side + 1, stride) for x in range(0, width - side + 1, stride)]

    def windows(image: Gray) -> Float32[np.ndarray, "n side side 1"]:
        return np.stack([image[y : y + side, x : x + side] for y, x in places])[..., None]

    whole = embed_gray(clip, [visible, infrared])
    patches = clip.encode_image(windows(fused))
    of_visible, of_infrared = (jnp.tile(row, (len(places), 1)) for row in whole)
    losses = language_driven_loss(patches, of_visible, of_infrared, texts.words)
    counts = informative(jnp.asarray(windows(visible)), jnp.asarray(windows(infrared)), threshold=threshold)
    return np.where(counts, losses, np.nan).reshape(len(range(0, height - side + 1, stride)), -1)


def losses_by_goal(
    clip: Clip, goals: Sequence[str], candidates: Mapping[str, Gray], visible: Gray, infrared: Gray
) -> Float[np.ndarray, "goals candidates"]:
    """The language-driven loss of each candidate as the fused image, under each goal sentence, in [0, 2].

    Example::

        candidates = {"average": average(luma, infrared), "maximum": maximum(luma, infrared)}
        losses_by_goal(clip, ["a clear image", "a blurry image"], candidates, luma, infrared)
    """
    of_visible, of_infrared = (jnp.tile(row, (len(candidates), 1)) for row in embed_gray(clip, [visible, infrared]))
    fused = jnp.asarray(embed_gray(clip, list(candidates.values())))
    texts = [embed(clip, goal=[goal]) for goal in goals]
    return np.stack([language_driven_loss(fused, of_visible, of_infrared, text.words) for text in texts])
