"""`langfuse-jax convert`: weights of other projects to this one's files, and back."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

from langfuse_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the sub-command."""
    models = parser.add_subparsers(dest="model", metavar="MODEL", required=True)
    fusion = models.add_parser("fusion", help="the published encoder and decoder (torch) to a checkpoint, or back")
    fusion.add_argument("--encoder", metavar="ENC.pt", help="published encoder, a torch state dict")
    fusion.add_argument("--decoder", metavar="DEC.pt", help="published decoder, a torch state dict")
    fusion.add_argument("--out", metavar="DIR", help="folder for the checkpoint")
    fusion.add_argument(
        "--pad-multiple",
        metavar="N",
        help="fuse images reflected to sides that are multiples of it (ENC.pt.json, or 1)",
    )
    fusion.add_argument(
        "--worn-edge", metavar="N", help="outermost pixels that the network is not to see (ENC.pt.json, or 0)"
    )
    fusion.add_argument("--to-torch", metavar="DIR", help="the other way: a checkpoint of this package")
    fusion.add_argument(
        "--out-encoder", metavar="ENC.pt", help="with --to-torch: encoder file to write, and ENC.pt.json"
    )
    fusion.add_argument("--out-decoder", metavar="DEC.pt", help="with --to-torch: decoder file to write")
    fusion.set_defaults(convert=_fusion)
    vgg19 = models.add_parser("vgg19", help="torchvision's or timm's VGG19 to the part the perceptual loss needs")
    vgg19.add_argument("--weights", metavar="FILE", required=True, help="vgg19 as .pth or .safetensors")
    vgg19.add_argument("--out", metavar="FILE.safetensors", required=True, help="where to write the convolutions")
    vgg19.set_defaults(convert=_vgg19)


def run(args: argparse.Namespace) -> int:
    """Converts the model that is named."""
    return args.convert(args)


def _vgg19(args: argparse.Namespace) -> int:
    """Keeps the convolutions that the perceptual loss needs, as .safetensors."""
    from langfuse_jax.weights.vgg import load_vgg19, save_vgg19

    save_vgg19(args.out, load_vgg19(args.weights))
    print(f"{args.out}: VGG19 up to conv4_2; train with --config.vgg={args.out}")
    return 0


def _fusion(args: argparse.Namespace) -> int:
    """Published weights to a checkpoint, or with --to-torch the other way."""
    forward = {"--encoder": args.encoder, "--decoder": args.decoder, "--out": args.out}
    backward = {"--to-torch": args.to_torch, "--out-encoder": args.out_encoder, "--out-decoder": args.out_decoder}
    rule = {"--pad-multiple": args.pad_multiple, "--worn-edge": args.worn_edge}
    chosen, other = (backward, forward | rule) if args.to_torch else (forward, backward)
    if missing := [flag for flag, value in chosen.items() if not value]:
        raise UserError(f"{', '.join(missing)} missing; give {' '.join(forward)}, or {' '.join(backward)}")
    if extra := [flag for flag, value in other.items() if value]:
        raise UserError(f"{', '.join(extra)} cannot go with {' '.join(chosen)}; leave it out")
    return _to_torch(args) if args.to_torch else _from_torch(args)


def _from_torch(args: argparse.Namespace) -> int:
    from langfuse_jax.weights.border_rule import read_border_rule, sidecar
    from langfuse_jax.weights.files import read_tensors
    from langfuse_jax.weights.fusion import save_fusion
    from langfuse_jax.weights.ldfusion import fusion_from_torch

    written = {path: f"--out {args.out}" for path in _checkpoint(args.out)}
    _refuse_sources((args.encoder, sidecar(args.encoder), args.decoder), written)
    rule = read_border_rule(args.encoder, {"pad_multiple": args.pad_multiple, "worn_edge": args.worn_edge})
    origin = f"--encoder {args.encoder} --decoder {args.decoder}"
    params = fusion_from_torch(read_tensors(args.encoder), read_tensors(args.decoder), origin=origin)
    names = {role: Path(getattr(args, role)).name for role in ("encoder", "decoder")}
    save_fusion(args.out, params, metadata={"converted_from": names} | rule)
    print(f"{args.out}: fusion checkpoint; fuse with --checkpoint {args.out}")
    how = ", ".join(f"{name} {value}" for name, value in rule.items())
    print(f"  sees images with {how}" if rule else "  sees images as they are")
    return 0


def _to_torch(args: argparse.Namespace) -> int:
    from langfuse_jax.weights.border_rule import sidecar, sidecar_content
    from langfuse_jax.weights.files import write_tensors
    from langfuse_jax.weights.fusion import load_fusion, require_ldfusion
    from langfuse_jax.weights.ldfusion import fusion_to_torch

    beside = sidecar(args.out_encoder)
    if Path(args.out_decoder).resolve() in (Path(args.out_encoder).resolve(), beside.resolve()):
        raise UserError(f"--out-decoder {args.out_decoder}: is a file of --out-encoder too; give another name")
    written = {Path(path): f"--out-encoder {args.out_encoder}" for path in (args.out_encoder, beside)}
    _refuse_sources(_checkpoint(args.to_torch), written | {Path(args.out_decoder): f"--out-decoder {args.out_decoder}"})
    params, metadata = load_fusion(args.to_torch)
    require_ldfusion(params, f"--to-torch {args.to_torch}")
    encoder, decoder = fusion_to_torch(params)
    write_tensors({args.out_encoder: encoder, args.out_decoder: decoder}, {beside: sidecar_content(metadata)})
    print(f"{args.out_encoder}, {args.out_decoder}: state dicts of the published encoder and decoder")
    print(f"{beside}: how the network is to see images, which the way back needs; keep it beside the encoder")
    if (multiple := metadata.get("pad_multiple", 1)) > 1:
        print(f"  trained on sides that are multiples of {multiple}: give the published code such images")
    if worn := metadata.get("worn_edge", 0):
        print(f"  a black line in the outermost {worn} pixels draws a grid: replace them by the next inner ones")
    return 0


def _checkpoint(folder: str) -> list[Path]:
    from langfuse_jax.weights.fusion import METADATA, TENSORS

    return [Path(folder) / name for name in (TENSORS, METADATA)]


def _refuse_sources(sources: Iterable[str | Path], written: Mapping[Path, str]) -> None:
    """Raises UserError, by the flag, where a file to be written is one that is read."""
    read = {Path(path).resolve() for path in sources}
    for path, flag in written.items():
        if Path(path).resolve() in read:
            raise UserError(f"{flag}: would replace {path}, which is read; give another name")
