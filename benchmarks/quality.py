"""The models of the package against what anyone can do without a network, with sheets of all pairs.

    python benchmarks/quality.py --data-root DATA --out runs/quality [--dataset roadscene_split] [--methods ...]

Prints means over the pairs, of gray images rounded to 8 bits: the nine usual metrics (convention cddfuse) and SSIM with
its usual constants, each method's mean rank over the ten, the correlation with each source. Higher is not always
better: noise raises EN, SF and AG.
"""

import argparse
from pathlib import Path

import numpy as np
from methods import DEFAULT, HELP, find_methods

from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.images.files import to_uint8, write_png
from langfuse_jax.images.sheet import grid
from langfuse_jax.metrics import evaluate
from langfuse_jax.metrics.table import USUAL

ROWS = 7  # pairs a sheet


def correlation(a, b):
    """Pearson's, over all pixels."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--dataset", default="vifb", help="its test part, where it has one (vifb)")
    parser.add_argument("--methods", nargs="+", default=DEFAULT, help=HELP)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    pairs = list_scenes(Path(args.data_root) / args.dataset, "test")
    methods = find_methods(args.methods)
    shown = [name for name in methods if name not in ("average", "elementwise max")]
    scores, rows = {name: [] for name in methods}, []
    for pair in pairs:
        visible, infrared = read_scene(pair)
        fused = {name: method(visible, infrared) for name, method in methods.items()}
        for name, image in fused.items():
            levels = [to_uint8(x).astype(np.float32) for x in (image, visible, infrared)]
            with_sources = (correlation(levels[0], source) for source in levels[1:])
            ssim = evaluate(*levels, metrics=("SSIM",), convention="corrected")["SSIM"]
            scores[name].append((*evaluate(*levels).values(), ssim, *with_sources))
        rows.append((infrared, visible, *(fused[name] for name in shown)))
    means = {name: np.mean(values, axis=0) for name, values in scores.items()}
    # All of them are better when higher.
    names = (*USUAL, "SSIM_L255")
    table = np.stack([values[: len(names)] for values in means.values()])
    ranks = (table[None] > table[:, None]).sum(1).mean(1) + 1
    print(f"| method | {' | '.join(names)} | mean rank | correlation with visible | with infrared |")
    print("|" + "---|" * (len(names) + 4))
    for (name, values), rank in zip(means.items(), ranks, strict=True):
        cells = [f"{value:.3g}" for value in values]
        print(f"| {name} | {' | '.join([*cells[:-2], f'{rank:.2f}', *cells[-2:]])} |")
    for start in range(0, len(rows), ROWS):
        stems = [pair.stem for pair in pairs[start : start + ROWS]]
        sheet = grid(rows[start : start + ROWS], ("infrared", "visible", *shown))
        write_png(args.out / f"{stems[0]}-{stems[-1]}.png", sheet)


if __name__ == "__main__":
    main()
