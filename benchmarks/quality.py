"""The default weights against what anyone can do without a network, on the 21 VIFB pairs, with a sheet of them all.

    python benchmarks/quality.py --data-root DATA --out runs/quality [--checkpoint DIR]

Prints means over the pairs, of gray images rounded to 8 bits: the nine usual metrics (convention cddfuse), each
method's mean rank over them, the correlation with each source. Higher is not always better: noise raises EN, SF and AG.
"""

import argparse
from pathlib import Path

import numpy as np

from langfuse_jax import Fuser
from langfuse_jax.baselines import BASELINES
from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.images import to_uint8, write_png
from langfuse_jax.metrics import evaluate
from langfuse_jax.metrics.table import USUAL
from langfuse_jax.sheet import grid

ROWS = 7  # pairs a sheet


def correlation(a, b):
    """Pearson's, over all pixels."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--checkpoint", help="default: the weights in the package")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    pairs = list_scenes(Path(args.data_root) / "vifb")
    methods = BASELINES | {"langfuse_jax": Fuser.load(args.checkpoint)}
    scores, rows = {name: [] for name in methods}, []
    for pair in pairs:
        visible, infrared = read_scene(pair)
        fused = {name: method(visible, infrared) for name, method in methods.items()}
        for name, image in fused.items():
            levels = [to_uint8(x).astype(np.float32) for x in (image, visible, infrared)]
            with_sources = (correlation(levels[0], source) for source in levels[1:])
            scores[name].append((*evaluate(*levels).values(), *with_sources))
        rows.append((infrared, visible, fused["Laplacian pyramid"], fused["langfuse_jax"]))
    means = {name: np.mean(values, axis=0) for name, values in scores.items()}
    # All of USUAL are better when higher.
    table = np.stack([values[: len(USUAL)] for values in means.values()])
    ranks = (table[None] > table[:, None]).sum(1).mean(1) + 1
    print(f"| method | {' | '.join(USUAL)} | mean rank | correlation with visible | with infrared |")
    print("|" + "---|" * (len(USUAL) + 4))
    for (name, values), rank in zip(means.items(), ranks, strict=True):
        shown = [f"{value:.3g}" for value in values]
        print(f"| {name} | {' | '.join([*shown[:-2], f'{rank:.2f}', *shown[-2:]])} |")
    for start in range(0, len(rows), ROWS):
        names = "-".join(pair.stem for pair in pairs[start : start + ROWS : ROWS - 1])
        sheet = grid(rows[start : start + ROWS], ("infrared", "visible", "Laplacian pyramid", "langfuse_jax"))
        write_png(args.out / f"{names}.png", sheet)


if __name__ == "__main__":
    main()
