"""A small picture of some VIFB pairs as several methods fuse them: the sheet of QUALITY.md.

    python benchmarks/sheets.py --data-root DATA --out benchmarks/milestones.jpg \
        --methods "Laplacian pyramid" untrained "guided=runs/warm" ldfusion

Fused images only: the sources are other people's.
"""

import argparse
from pathlib import Path

import numpy as np
from methods import HELP, find_methods
from PIL import Image

from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.images.sheet import grid
from langfuse_jax.runtime.atomic import atomic_write

TALLEST = 0.72  # of a tile's width; what is below is cut off
QUALITY = 82


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--methods", nargs="+", default=["Laplacian pyramid", "ldfusion", "steered"], help=HELP)
    parser.add_argument("--pairs", nargs="+", default=["man", "snow", "manlight", "carLight"])
    parser.add_argument("--width", type=int, default=400, help="pixels of each image")
    parser.add_argument("--out", type=Path, required=True, help="a JPEG")
    args = parser.parse_args()
    scenes = {scene.stem: read_scene(scene) for scene in list_scenes(Path(args.data_root) / "vifb")}
    methods = find_methods(args.methods)
    rows = [[tile(method(*scenes[name]), args.width) for method in methods.values()] for name in args.pairs]
    write_jpeg(args.out, grid(rows, tuple(methods)))


def tile(fused, width):
    """A fused image (h, w) in [0, 1], cut to the tallest that a tile may be and resized to `width`; uint8."""
    fused = np.asarray(fused)
    fused = fused[: int(fused.shape[1] * TALLEST)]
    size = width, round(width * fused.shape[0] / fused.shape[1])
    return np.asarray(Image.fromarray((255 * fused).round().astype(np.uint8)).resize(size, Image.Resampling.LANCZOS))


def write_jpeg(path, sheet):
    with atomic_write(path) as file:
        Image.fromarray(sheet).convert("L").save(file, "JPEG", quality=QUALITY)


if __name__ == "__main__":
    main()
