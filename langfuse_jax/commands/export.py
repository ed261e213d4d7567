"""`langfuse-jax export`: network and weights to a file that JAX alone can run."""

import argparse
from pathlib import Path

from langfuse_jax.commands.flags import add_model
from langfuse_jax.errors import UserError
from langfuse_jax.runtime.atomic import atomic_write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command."""
    parser.add_argument("--out", metavar="FILE", required=True, help="the jax.export artefact, such as model.stablehlo")
    parser.add_argument("--checkpoint", metavar="DIR", help="trained model (default: the weights in the package)")
    add_model(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command. Raises UserError for a checkpoint that cannot be read or a file that cannot be written."""
    from langfuse_jax.inference.export import PLATFORMS, export_fusion
    from langfuse_jax.inference.fuser import Fuser

    out = Path(args.out)
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; name a file, such as {out / 'model.stablehlo'}")
    fuser = Fuser.load(args.checkpoint, model=args.model)
    with atomic_write(out) as file:  # opened first: a place that cannot be written is found before the work
        artefact = export_fusion(fuser)
        file.write(artefact)
    print(f"wrote {out} ({len(artefact) / 2**20:.1f} MiB, for {', '.join(PLATFORMS)})")
    return 0
