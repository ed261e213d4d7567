"""The fixed validation pairs by which a training run is looked at, and the sentences that they are fused towards."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, PyTree
from ml_collections import ConfigDict

from langfuse_jax.clip.words import TextEmbeddings
from langfuse_jax.data.prepared import Record
from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.images.canvas import Size
from langfuse_jax.images.pairs import Pair
from langfuse_jax.inference.fuser import Fuser

Images = Float[np.ndarray, "n h w"]


class Sentence(NamedTuple):
    """What pictures are to look like.

    Attributes:
        text: the sentence, or several that count as one.
        goal: its unit embedding.
        direction: by which a steered network follows it; None for what a network does by default.
    """

    text: str
    goal: Float32[np.ndarray, " d"]
    direction: Float32[np.ndarray, " d"] | None = None


def default(prompts: TextEmbeddings) -> Sentence:
    """The goal of a config, which a network is to follow by default.

    >>> from langfuse_jax.clip.words import embed
    >>> from langfuse_jax.clip.pretrained import Clip
    >>> default(embed(Clip.load(), goal=["a bright image", "a sharp image"])).text
    'a bright image; a sharp image'
    """
    return Sentence("; ".join(prompts.prompts["goal"]), prompts.goal)


class Shown(NamedTuple):
    """Pairs that are read anew each time, so that a run does not keep them.

    Attributes:
        scenes: the pairs.
        size: what is cut from the middle of each; one size for all, so that the network is compiled once.
        metadata: the config that parameters were trained with -> what their `Fuser` must know.
    """

    scenes: Sequence[Pair | Record]
    size: Size
    metadata: Callable[[Mapping[str, Any]], Mapping[str, Any]]

    def read(self) -> tuple[Images, Images]:
        """Visible and infrared images, in [0, 1]. Raises UserError for one that cannot be read."""
        visible, infrared = zip(*([_centre(x, self.size) for x in read_scene(s)] for s in self.scenes), strict=True)
        return np.stack(visible), np.stack(infrared)

    def fuse(
        self,
        params: PyTree,
        trained_with: Mapping[str, Any],
        sentence: Sentence,
        visible: Images,
        infrared: Images,
    ) -> Images:
        """The fused images, in [0, 1]."""
        fuser = Fuser(params, dict(self.metadata(trained_with)), sentence.direction)
        return fuser(visible[..., None], infrared[..., None])[..., 0]


def shown_pairs(config: ConfigDict, metadata: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Shown | None:
    """`config.sheet.pairs` pairs, spread over the validation dataset; None without any.

    Raises UserError for those that cannot be read, now, not in an hour.
    """
    pairs = list_scenes(Path(config.data.root) / config.data.validation, "test") if config.data.validation else []
    if not pairs:
        return None
    chosen = [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(config.sheet.pairs, len(pairs))).round().astype(int)]
    h, w = map(min, zip(*(read_scene(pair)[0].shape for pair in chosen), strict=True))
    return Shown(chosen, (h, w), metadata)


def _centre(image: Float[np.ndarray, "_ _"], size: Size) -> Float[np.ndarray, "h w"]:
    (h, w), (top, left) = size, ((whole - part) // 2 for whole, part in zip(image.shape, size, strict=True))
    return image[top : top + h, left : left + w]
