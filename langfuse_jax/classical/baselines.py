"""What anyone can do without a network: three classical fusions, to compare with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from langfuse_jax.classical.pyramid import collapse, laplacian_pyramid
from langfuse_jax.images.files import write_png
from langfuse_jax.images.pairs import match_pairs, read_pair

Gray = Float32[np.ndarray, "h w"]


def average(visible: Gray, infrared: Gray) -> Gray:
    """The mean of two gray images in [0, 1].

    >>> average(np.float32([[0.0]]), np.float32([[0.5]])).tolist()
    [[0.25]]
    """
    return (visible + infrared) / 2


def maximum(visible: Gray, infrared: Gray) -> Gray:
    """The brighter pixel of two gray images in [0, 1].

    >>> maximum(np.float32([[0.0, 1.0]]), np.float32([[0.5, 0.5]])).tolist()
    [[0.5, 1.0]]
    """
    return np.maximum(visible, infrared)


def pyramid(visible: Gray, infrared: Gray, levels: int = 4) -> Gray:
    """Laplacian pyramids (Burt & Adelson, 1983) of two gray images in [0, 1]: the stronger of each band's values, the
    mean of the residues.

    >>> flat = np.full((32, 32), 0.5, np.float32)
    >>> bool(np.allclose(pyramid(flat, flat), flat))
    True
    """
    bands = list(zip(laplacian_pyramid(visible, levels), laplacian_pyramid(infrared, levels), strict=True))
    chosen = [np.where(np.abs(v) >= np.abs(i), v, i) for v, i in bands[:-1]]
    return np.clip(collapse([*chosen, (bands[-1][0] + bands[-1][1]) / 2]), 0, 1)


BASELINES: dict[str, Callable[[Gray, Gray], Gray]] = {
    "average": average,
    "elementwise max": maximum,
    "Laplacian pyramid": pyramid,
}


def write_baselines(visible: str | Path, infrared: str | Path, out: str | Path) -> None:
    """Fuses the pairs of two folders by each baseline: `out`/average, `out`/maximum and `out`/pyramid, gray PNGs.

    Raises UserError for folders without pairs, unreadable images and a place that cannot be written.

    >>> from langfuse_jax.examples.night_scene import write_night_scenes
    >>> write_night_scenes("scenes", 1, 48, 64)
    >>> write_baselines("scenes/visible", "scenes/infrared", "fused")
    >>> sorted(path.name for path in Path("fused").iterdir())
    ['average', 'maximum', 'pyramid']
    """
    for pair in match_pairs(visible, infrared)[0]:
        luma, _, gray = read_pair(pair)
        for method in BASELINES.values():
            write_png(Path(out) / method.__name__ / f"{pair.stem}.png", method(luma, gray))
