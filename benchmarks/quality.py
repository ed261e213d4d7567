"""The default weights against what anyone can do without a network, on the 21 VIFB pairs, with a sheet of them all.

    python benchmarks/quality.py --data-root DATA --out runs/quality [--checkpoint DIR]

Prints means over the pairs of statistics of 8-bit gray images: entropy (EN), standard deviation (SD), spatial frequency
(SF), average gradient (AG), and the correlation with each source. Higher is not always
better: noise raises EN, SF and AG.
"""

import argparse
from pathlib import Path

import numpy as np

from langfuse_jax import Fuser
from langfuse_jax.data.pyramid_fusion import collapse, laplacian_pyramid
from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.images import write_png
from langfuse_jax.sheet import grid

ROWS = 7  # pairs a sheet


def entropy(image):
    """Bits, over 256 bins of 0-255."""
    p = np.bincount(image.astype(np.uint8).ravel(), minlength=256) / image.size
    return float(-(p[p > 0] * np.log2(p[p > 0])).sum())


def spatial_frequency(image):
    """sqrt(mean squared row difference + mean squared column difference)."""
    return float(np.sqrt((np.diff(image, axis=0) ** 2).mean() + (np.diff(image, axis=1) ** 2).mean()))


def average_gradient(image):
    """Mean over pixels of sqrt((dx^2 + dy^2) / 2), forward differences."""
    dx, dy = image[:-1, 1:] - image[:-1, :-1], image[1:, :-1] - image[:-1, :-1]
    return float(np.sqrt((dx**2 + dy**2) / 2).mean())


def correlation(a, b):
    """Pearson's, over all pixels."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def pyramid(visible, infrared, levels=4):
    """Laplacian pyramid: the stronger band, the mean of the residues."""
    bands = list(zip(laplacian_pyramid(visible, levels), laplacian_pyramid(infrared, levels), strict=True))
    chosen = [np.where(np.abs(v) >= np.abs(i), v, i) for v, i in bands[:-1]]
    return np.clip(collapse([*chosen, (bands[-1][0] + bands[-1][1]) / 2]), 0, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--checkpoint", help="default: the weights in the package")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    pairs = list_scenes(Path(args.data_root) / "vifb")
    methods = {
        "average": lambda visible, infrared: (visible + infrared) / 2,
        "elementwise max": np.maximum,
        "Laplacian pyramid": pyramid,
        "langfuse_jax": Fuser.load(args.checkpoint),
    }
    scores, rows = {name: [] for name in methods}, []
    for pair in pairs:
        visible, infrared = read_scene(pair)
        fused = {name: method(visible, infrared) for name, method in methods.items()}
        for name, image in fused.items():
            gray = np.rint(255 * image)
            statistics = entropy(gray), gray.std(), spatial_frequency(gray), average_gradient(gray)
            scores[name].append((*statistics, correlation(gray, visible), correlation(gray, infrared)))
        rows.append((infrared, visible, fused["Laplacian pyramid"], fused["langfuse_jax"]))
    print("| method | EN | SD | SF | AG | correlation with visible | with infrared |")
    print("|---|---|---|---|---|---|---|")
    for name, values in scores.items():
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in np.mean(values, axis=0)) + " |")
    for start in range(0, len(rows), ROWS):
        names = "-".join(pair.stem for pair in pairs[start : start + ROWS : ROWS - 1])
        sheet = grid(rows[start : start + ROWS], ("infrared", "visible", "Laplacian pyramid", "langfuse_jax"))
        write_png(args.out / f"{names}.png", sheet)


if __name__ == "__main__":
    main()
