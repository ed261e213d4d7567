"""Real pairs and what can be made of each: the whole-image variants that patches of the compact CLIP are cut from."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from langfuse_jax.classical.pyramid import enhance, hot_targets, pyramid_fuse
from langfuse_jax.images.files import to_uint8, ycbcr_to_rgb
from langfuse_jax.images.pairs import Pair, match_pairs, read_pair

VARIANTS = (
    "visible",
    "infrared",
    "goal",
    "goal_strong",
    "average",
    "maximum",
    "inverted_targets",
    "visible_enhanced",
    "infrared_enhanced",
)
COLOURS = slice(len(VARIANTS), len(VARIANTS) + 3)


class Scene(NamedTuple):
    """One pair: `layers[v]` is the variant VARIANTS[v], `layers[COLOURS]` the visible image's red, green and blue, and
    the last layer says where the infrared is hot (0-255).
    """

    name: str
    layers: UInt8[np.ndarray, "v h w"]


def load_scenes(folder: str | Path) -> list[Scene]:
    """All pairs of a folder with visible/ and infrared/ inside, by stem. Raises UserError for what cannot be used."""
    pairs, _ = match_pairs(Path(folder) / "visible", Path(folder) / "infrared")
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(_scene, pairs))


def _scene(pair: Pair) -> Scene:
    visible, chroma, infrared = read_pair(pair)
    colours = np.stack(3 * [visible]) if chroma is None else np.moveaxis(ycbcr_to_rgb(visible, chroma), -1, 0)
    fused = pyramid_fuse(visible, infrared)
    images = (
        visible,
        infrared,
        enhance(fused, contrast=0.25, sharpness=0.25, brightness=0.43),
        enhance(fused, contrast=0.45, sharpness=0.5, brightness=0.48),
        (visible + infrared) / 2,
        np.maximum(visible, infrared),
        enhance(pyramid_fuse(visible, 1 - infrared), contrast=0.25, sharpness=0.25, brightness=0.43),
        enhance(visible, contrast=0.35, sharpness=0.4, brightness=0.45),
        enhance(infrared, contrast=0.35, sharpness=0.4, brightness=0.45),
        *colours,
        hot_targets(infrared),
    )
    return Scene(pair.stem, to_uint8(np.stack(images)))
