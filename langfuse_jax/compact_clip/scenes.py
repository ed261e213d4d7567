"""Real pairs and what can be made of each: the whole-image variants that patches of the compact CLIP are cut from."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from langfuse_jax.classical.pyramid import enhance, hot_targets, pyramid_fuse
from langfuse_jax.classical.target import target_fuse
from langfuse_jax.images.files import to_uint8, ycbcr_to_rgb
from langfuse_jax.images.pairs import Pair, match_pairs, read_pair

VARIANTS = (
    "visible",
    "infrared",
    "goal",
    "goal_strong",
    "goal_natural",
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
    pairs = match_pairs(Path(folder) / "visible", Path(folder) / "infrared").pairs
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(_scene, pairs))


def inside_black_border(image: Float32[np.ndarray, "h w"]) -> tuple[slice, slice]:
    """The rows and columns of an image in [0, 1] without the black ones at its sides, of which at most 2% are cut.

    Registration leaves such borders where one camera sees less than the other.
    """
    slices = []
    for axis in (0, 1):
        black = np.quantile(image, 0.9, axis=1 - axis) < 8.5 / 255
        most = len(black) // 50
        first, last = (next((i for i, line in enumerate(lines) if not line), most) for lines in (black, black[::-1]))
        slices.append(slice(min(first, most), len(black) - min(last, most)))
    return slices[0], slices[1]


def _scene(pair: Pair) -> Scene:
    visible, chroma, infrared = read_pair(pair)
    for source in (visible, infrared):
        rows, columns = inside_black_border(source)
        visible, infrared = visible[rows, columns], infrared[rows, columns]
        chroma = None if chroma is None else chroma[rows, columns]
    colours = np.stack(3 * [visible]) if chroma is None else np.moveaxis(ycbcr_to_rgb(visible, chroma), -1, 0)
    fused = pyramid_fuse(visible, infrared)
    images = (
        visible,
        infrared,
        enhance(fused, contrast=0.25, sharpness=0.25, brightness=0.43),
        enhance(fused, contrast=0.45, sharpness=0.5, brightness=0.48),
        target_fuse(visible, infrared),
        (visible + infrared) / 2,
        np.maximum(visible, infrared),
        enhance(pyramid_fuse(visible, 1 - infrared), contrast=0.25, sharpness=0.25, brightness=0.43),
        enhance(visible, contrast=0.35, sharpness=0.4, brightness=0.45),
        enhance(infrared, contrast=0.35, sharpness=0.4, brightness=0.45),
        *colours,
        hot_targets(infrared),
    )
    return Scene(pair.stem, to_uint8(np.stack(images)))
