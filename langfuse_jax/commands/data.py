"""`langfuse-jax data build`: a downloaded dataset of pairs to ArrayRecord files."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    build = actions.add_parser("build", help="a downloaded dataset to ArrayRecord files")
    build.add_argument("dataset", choices=("roadscene", "msrs", "llvip", "m3fd", "tno", "folder"))
    build.add_argument("--source", metavar="DIR", required=True, help="the folder as it was downloaded")
    build.add_argument("--out", metavar="DIR", default="data", help="root of the prepared datasets (data)")
    build.add_argument("--name", metavar="NAME", help="name of the prepared dataset (default: that of DATASET)")
    build.add_argument("--overwrite", action="store_true", help="prepare again what is there already")


def run(args: argparse.Namespace) -> int:
    """Prepares the dataset and says how to train with it."""
    from langfuse_jax.data.build import build_dataset
    from langfuse_jax.data.builders import BUILDERS

    place, counts = build_dataset(
        args.dataset, Path(args.source), Path(args.out), name=args.name, overwrite=args.overwrite
    )
    if counts is None:
        print(f"{place}: is there already (--overwrite prepares it again)")
        return 0
    builder = BUILDERS[args.dataset]
    pairs = ", ".join(f"{part} {count}" for part, count in counts.items())
    print(f"{place}: {pairs} pairs. Licence: {builder.LICENCE} {builder.HOMEPAGE}")
    print(f"train with --config.data.root={args.out} --config.data.train=\"('{place.parent.name}',)\"")
    return 0
