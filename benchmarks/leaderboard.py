"""Published methods' own fused images beside the package's, scored in one run by one implementation.

    python benchmarks/leaderboard.py --data-root DATA --peers PEERS --out runs/leaderboard [--dataset vifb]

PEERS has a folder of fused images for each method, named as the scenes (or as a scene, an underscore and more). Prints
a table for each of two conventions, sorted by the mean rank over the nine usual metrics.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from methods import DEFAULT, HELP, find_methods

from langfuse_jax import evaluate_folders
from langfuse_jax.data.scenes import list_scenes, read_scene
from langfuse_jax.evaluation.table import ScoreTable
from langfuse_jax.images.files import write_png


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--dataset", default="vifb", help="its test part, where it has one (vifb)")
    parser.add_argument("--peers", type=Path, help="a folder for each published method")
    parser.add_argument("--methods", nargs="+", default=DEFAULT, help=HELP)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    scenes = list_scenes(args.data_root / args.dataset, "test")
    images = args.out / "leaderboard" / args.dataset
    shutil.rmtree(images, ignore_errors=True)
    sources = [images / "visible", images / "infrared"]
    methods = {name: images / name for name in args.methods for name in [name.partition("=")[0]]}
    for name, method in find_methods(args.methods).items():
        for scene in scenes:
            write_png(methods[name] / f"{scene.stem}.png", method(*read_scene(scene)))
    for scene in scenes:
        for folder, source in zip(sources, read_scene(scene), strict=True):
            write_png(folder / f"{scene.stem}.png", source)
    for peer in sorted(args.peers.iterdir()) if args.peers else ():
        if peer.is_dir():
            if peer.name in methods or peer.name in ("visible", "infrared"):
                raise SystemExit(f"--peers {peer}: the name is taken; rename the folder")
            methods[peer.name] = _linked(peer, [scene.stem for scene in scenes], images / peer.name)
    for convention in ("cddfuse", "corrected"):
        result = evaluate_folders(methods, *sources, convention=convention)
        table = _sorted(result.table)
        print(f"\n{result.title}; {len(methods)} methods\n\n{table}")
        (args.out / f"{Path(args.dataset).name}_{convention}.md").write_text(f"{table}\n")


def _linked(peer: Path, stems: list[str], out: Path) -> Path:
    """A folder of links to a method's images that are named exactly as the scenes."""
    out.mkdir(parents=True)
    for file in sorted(peer.iterdir()):
        # The longest stem that the name begins with: "man_2" before "man".
        named = [stem for stem in stems if file.stem == stem or file.stem.startswith(f"{stem}_")]
        if named:
            link = out / f"{max(named, key=len)}{file.suffix}"
            if link.exists():
                raise SystemExit(f"{file}: is a second file of the scene {link.stem}; leave one of them")
            link.symlink_to(file.resolve())
    return out


def _sorted(table: ScoreTable) -> str:
    lines = [f"| method | {' | '.join(table.headings())} | mean rank |", "|---" * (len(table.columns) + 2) + "|"]
    for row in np.argsort(table.mean_rank, kind="stable"):
        cells = [f"{value:.3g}" for value in table.mean[row]]
        lines.append(f"| {table.methods[row]} | {' | '.join(cells)} | {table.mean_rank[row]:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
