"""The sheet that shows how a network fuses while it is trained: infrared | visible | fused of fixed pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, PyTree
from ml_collections import ConfigDict

from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.images.canvas import border_rule
from langfuse_jax.images.files import write_png
from langfuse_jax.images.sheet import grid
from langfuse_jax.inference.fuser import Fuser
from langfuse_jax.training.loop import Look


def make_sheet(config: ConfigDict, folder: Path) -> list[Look]:
    """The look that writes `folder`/step_NNNNNN.png, of `config.sheet.pairs` validation pairs; none without any.

    Pairs are read anew each time; those that cannot be read raise UserError at once.
    """
    pairs = list_scenes(Path(config.data.root) / config.data.validation, "test") if config.data.validation else []
    if not pairs:
        return []
    pairs = [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(config.sheet.pairs, len(pairs))).round().astype(int)]
    # One size for all, so that the network is compiled once.
    h, w = map(min, zip(*(read_scene(pair)[0].shape for pair in pairs), strict=True))

    def draw(params: PyTree, step: int, trained_with: Mapping[str, Any]) -> Path:
        images = [[_centre(image, h, w) for image in read_scene(pair)] for pair in pairs]
        visible, infrared = (np.stack(role)[..., None] for role in zip(*images, strict=True))
        fused = Fuser(params, border_rule(trained_with["crop"]))(visible, infrared)
        rows = [(i[..., 0], v[..., 0], f[..., 0]) for i, v, f in zip(infrared, visible, fused, strict=True)]
        path = folder / f"step_{step:06d}.png"
        write_png(path, grid(rows))
        return path

    return [Look("sheet", config.sheet.every, draw)]


def _centre(image: Float[np.ndarray, "_ _"], h: int, w: int) -> Float[np.ndarray, "h w"]:
    top, left = (image.shape[0] - h) // 2, (image.shape[1] - w) // 2
    return image[top : top + h, left : left + w]
