"""`langfuse-jax export`: network and weights to a file that JAX alone, or ONNX's runtimes, can run."""

import argparse
from pathlib import Path

from langfuse_jax.commands.flags import add_model
from langfuse_jax.errors import UserError
from langfuse_jax.runtime.atomic import atomic_write

FORMATS = ("stablehlo", "onnx")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command."""
    parser.add_argument("--out", metavar="FILE", required=True, help="such as model.stablehlo or model.onnx")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="stablehlo, a jax.export artefact (default), or onnx, of the default network (default where FILE ends in "
        ".onnx; needs the extra [onnx])",
    )
    parser.add_argument("--checkpoint", metavar="DIR", help="trained model (default: the weights in the package)")
    add_model(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command. Raises UserError for a checkpoint that cannot be read or a file that cannot be written."""
    from langfuse_jax.inference.export import PLATFORMS, export_fusion
    from langfuse_jax.inference.fuser import Fuser
    from langfuse_jax.inference.onnx import export_onnx
    from langfuse_jax.inference.onnx_graph import OPSET

    out = Path(args.out)
    as_onnx = args.format == "onnx" or (args.format is None and out.suffix.lower() == ".onnx")
    if out.is_dir():
        example = out / ("model.onnx" if as_onnx else "model.stablehlo")
        raise UserError(f"--out {out}: is a folder; name a file, such as {example}")
    fuser = Fuser.load(args.checkpoint, model=args.model)
    with atomic_write(out) as file:  # opened first: a place that cannot be written is found before the work
        artefact = export_onnx(fuser) if as_onnx else export_fusion(fuser)
        file.write(artefact)
    kind = f"ONNX, opset {OPSET}" if as_onnx else f"for {', '.join(PLATFORMS)}"
    print(f"wrote {out} ({len(artefact) / 2**20:.1f} MiB, {kind})")
    return 0
