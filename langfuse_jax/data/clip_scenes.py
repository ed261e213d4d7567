"""Real pairs and what can be made of each: the whole-image variants that patches of the compact CLIP are cut from."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from langfuse_jax.data.pyramid_fusion import enhance, gaussian_blur, hot_targets, pyramid_fuse
from langfuse_jax.images import read_infrared, read_visible, to_uint8
from langfuse_jax.pairs import match_pairs

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


class Scene(NamedTuple):
    """One pair: `layers[v]` is the variant VARIANTS[v], and the last layer says where the infrared is hot (0-255)."""

    name: str
    layers: UInt8[np.ndarray, "v h w"]


def load_scenes(folder: str | Path, *, simulated: bool = False) -> list[Scene]:
    """All pairs of a folder with visible/ and infrared/ inside, by stem; `simulated`: as other cameras might see them.

    Raises UserError for folders and files that cannot be used.
    """
    pairs, _ = match_pairs(Path(folder) / "visible", Path(folder) / "infrared")
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(partial(_scene, simulated=simulated), range(len(pairs)), pairs))


def _other_camera(visible, infrared, rng):
    """A visible camera of more contrast and a softer, flatter thermal one: the opposite of RoadScene's.

    From one or two cameras alone, "infrared" comes to mean a camera, and is inverted on the next one.
    """
    contrast, sharpness, brightness = rng.uniform(0, 0.5), rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.6)
    visible = enhance(visible, contrast=contrast, sharpness=sharpness, brightness=brightness)
    infrared = gaussian_blur(infrared, rng.uniform(0.6, 2.2))
    flat = rng.uniform(0.35, 0.9) * (infrared - infrared.mean()) + rng.uniform(0.25, 0.55)
    return visible, np.clip(flat, 0, 1).astype(np.float32)


def _scene(number, pair, simulated):
    visible, infrared = read_visible(pair.visible)[0], read_infrared(pair.infrared)
    if simulated:
        visible, infrared = _other_camera(visible, infrared, np.random.default_rng(number))
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
        hot_targets(infrared),
    )
    return Scene(pair.stem, to_uint8(np.stack(images)))
