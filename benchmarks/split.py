"""Divides a folder of pairs into train and test: every eighth pair, by name, is held out. Links, copies nothing.

python benchmarks/split.py --source DATA/roadscene --out DATA/roadscene_split
"""

import argparse
from pathlib import Path

from langfuse_jax.data.scenes import list_scenes

EVERY = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="a folder of pairs")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    for number, pair in enumerate(list_scenes(args.source)):
        part = "train" if number % EVERY else "test"
        for role, path in (("visible", pair.visible), ("infrared", pair.infrared)):
            folder = args.out / part / role
            folder.mkdir(parents=True, exist_ok=True)
            (folder / path.name).symlink_to(path.resolve())


if __name__ == "__main__":
    main()
