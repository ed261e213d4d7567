"""The published fusion weights (two torch state dicts) <-> parameters of `FusionNet`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from langfuse_jax.convert.files import read_tensors, write_tensors
from langfuse_jax.convert.how_seen import read_seen, sidecar, sidecar_content
from langfuse_jax.convert.tables import CONV, CONV_TRANSPOSE, LINEAR, Rule, to_flax, to_source
from langfuse_jax.errors import UserError
from langfuse_jax.models.fusion import MIN_SIDE, FusionNet
from langfuse_jax.weights import METADATA, TENSORS, load_fusion, refuse_student, save_fusion


def _layer(source, target, transform):
    return [Rule(f"{source}.weight", f"{target}/kernel", transform), Rule(f"{source}.bias", f"{target}/bias")]


def _content(source, target):
    rules = []
    for place, ours in ((1, "stem"), (4, "down_0"), (7, "down_1"), (10, "down_2")):
        rules += _layer(f"{source}.{place}", f"{target}/{ours}", CONV)
    return rules + _residual(f"{source}.13", f"{target}/block_0") + _residual(f"{source}.14", f"{target}/block_1")


def _residual(source, target):
    return _layer(f"{source}.block.1", f"{target}/conv_0", CONV) + _layer(f"{source}.block.5", f"{target}/conv_1", CONV)


def _style(source, target):
    rules = []
    for place, ours in ((1, "stem"), (3, "down_0"), (5, "down_1"), (7, "down_2"), (10, "head")):
        rules += _layer(f"{source}.{place}", f"{target}/{ours}", CONV)
    return rules


def _up(number):
    conv, norm = (f"decoder.model_up.{3 * number + place}" for place in (0, 1))
    return [
        *_layer(conv, f"decoder/up_{number}", CONV_TRANSPOSE),
        Rule(f"{norm}.gamma", f"decoder/up_norm_{number}/gamma"),
        Rule(f"{norm}.beta", f"decoder/up_norm_{number}/beta"),
    ]


# Sources are named by file, then by torch's name: "encoder." or "decoder." comes first.
TABLE = (
    *_content("encoder.content_encoder1.model", "content_visible"),
    *_content("encoder.content_encoder2.model", "content_infrared"),
    *_style("encoder.style_encoder1.model", "style_visible"),
    *_style("encoder.style_encoder2.model", "style_infrared"),
    *_residual("decoder.model_local.0", "decoder/block_0"),
    *_residual("decoder.model_local.1", "decoder/block_1"),
    *_up(0),
    *_up(1),
    *_up(2),
    *_layer("decoder.model_up.10", "decoder/head", CONV),
    *_layer("decoder.mlp.model.0", "decoder/mlp/dense_0", LINEAR),
    *_layer("decoder.mlp.model.2", "decoder/mlp/dense_1", LINEAR),
    *_layer("decoder.mlp.model.4", "decoder/mlp/dense_2", LINEAR),
)

# Buffers of the published AdaIN layers, which normalise by each image's own statistics: never read, never changed,
# and asked for by torch's load_state_dict.
BUFFERS = {
    f"decoder.model_local.{block}.block.{norm}.running_{statistic}": np.full(256, value, np.float32)
    for block in (0, 1)
    for norm in (2, 6)
    for statistic, value in (("mean", 0.0), ("var", 1.0))
}


def fusion_from_torch(
    encoder: Mapping[str, np.ndarray], decoder: Mapping[str, np.ndarray], *, origin: str = "the encoder and decoder"
) -> dict[str, Any]:
    """The published encoder and decoder state dicts as `FusionNet` parameters: `{"params": ...}`, float32 numpy.

    Raises UserError that lists source tensors without a use, parameters left unfilled and wrong shapes, all of them
    named by `origin` and file, and one that says so where encoder and decoder are swapped.

    Example::

        params = fusion_from_torch(read_tensors("encoder.pth"), read_tensors("decoder.pth"))
        fused = FusionNet().apply(params, visible, infrared)
    """
    ours = {rule.source for rule in TABLE}
    tensors, swapped = (
        {f"{first}.{name}": value for name, value in encoder.items()}
        | {f"{second}.{name}": value for name, value in decoder.items()}
        for first, second in (("encoder", "decoder"), ("decoder", "encoder"))
    )
    if not ours & tensors.keys() and ours & swapped.keys():
        raise UserError(f"{origin}: encoder and decoder are swapped; give them the other way round")
    shape = jax.ShapeDtypeStruct((1, MIN_SIDE, MIN_SIDE, 1), jnp.float32)
    tree = jax.eval_shape(FusionNet().init, jax.random.key(0), shape, shape)["params"]
    shapes = {path: leaf.shape for path, leaf in flatten_dict(tree, sep="/").items()}
    ignored = [name.replace(".", r"\.") for name in BUFFERS]
    return {"params": unflatten_dict(to_flax(tensors, TABLE, shapes, origin=origin, ignored=ignored), sep="/")}


def fusion_to_torch(params: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The published encoder and decoder state dicts, complete, of `FusionNet` parameters `{"params": ...}`.

    Example::

        encoder, decoder = fusion_to_torch(Fuser.load("runs/mine").params)
        write_tensors({"encoder.pth": encoder, "decoder.pth": decoder})
    """
    tensors = to_source(flatten_dict(params["params"], sep="/"), TABLE) | BUFFERS
    encoder, decoder = (
        {name.removeprefix(file): value for name, value in tensors.items() if name.startswith(file)}
        for file in ("encoder.", "decoder.")
    )
    return encoder, decoder


def convert_fusion_command(args) -> int:
    """`langfuse-jax convert fusion`: published weights to a checkpoint, or with --to-torch the other way."""
    forward = {"--encoder": args.encoder, "--decoder": args.decoder, "--out": args.out}
    backward = {"--to-torch": args.to_torch, "--out-encoder": args.out_encoder, "--out-decoder": args.out_decoder}
    seen = {"--pad-multiple": args.pad_multiple, "--worn-edge": args.worn_edge}
    chosen, other = (backward, forward | seen) if args.to_torch else (forward, backward)
    if missing := [flag for flag, value in chosen.items() if not value]:
        raise UserError(f"{', '.join(missing)} missing; give {' '.join(forward)}, or {' '.join(backward)}")
    if extra := [flag for flag, value in other.items() if value]:
        raise UserError(f"{', '.join(extra)} cannot go with {' '.join(chosen)}; leave it out")
    return _to_torch(args) if args.to_torch else _from_torch(args)


def _from_torch(args):
    written = {path: f"--out {args.out}" for path in _checkpoint(args.out)}
    _refuse_sources((args.encoder, sidecar(args.encoder), args.decoder), written)
    seen = read_seen(args.encoder, {"pad_multiple": args.pad_multiple, "worn_edge": args.worn_edge})
    origin = f"--encoder {args.encoder} --decoder {args.decoder}"
    params = fusion_from_torch(read_tensors(args.encoder), read_tensors(args.decoder), origin=origin)
    names = {role: Path(getattr(args, role)).name for role in ("encoder", "decoder")}
    save_fusion(args.out, params, metadata={"converted_from": names} | seen)
    print(f"{args.out}: fusion checkpoint; fuse with --checkpoint {args.out}")
    how = ", ".join(f"{name} {value}" for name, value in seen.items())
    print(f"  sees images with {how}" if seen else "  sees images as they are")
    return 0


def _to_torch(args):
    beside = sidecar(args.out_encoder)
    if Path(args.out_decoder).resolve() in (Path(args.out_encoder).resolve(), beside.resolve()):
        raise UserError(f"--out-decoder {args.out_decoder}: is a file of --out-encoder too; give another name")
    written = {path: f"--out-encoder {args.out_encoder}" for path in (args.out_encoder, beside)}
    _refuse_sources(_checkpoint(args.to_torch), written | {args.out_decoder: f"--out-decoder {args.out_decoder}"})
    params, metadata = load_fusion(args.to_torch)
    refuse_student(params, f"--to-torch {args.to_torch}")
    encoder, decoder = fusion_to_torch(params)
    write_tensors({args.out_encoder: encoder, args.out_decoder: decoder}, {beside: sidecar_content(metadata)})
    print(f"{args.out_encoder}, {args.out_decoder}: state dicts of the published encoder and decoder")
    print(f"{beside}: how the network is to see images, which the way back needs; keep it beside the encoder")
    if (multiple := metadata.get("pad_multiple", 1)) > 1:
        print(f"  trained on sides that are multiples of {multiple}: give the published code such images")
    if worn := metadata.get("worn_edge", 0):
        print(f"  a black line in the outermost {worn} pixels draws a grid: replace them by the next inner ones")
    return 0


def _checkpoint(folder):
    return [Path(folder) / name for name in (TENSORS, METADATA)]


def _refuse_sources(sources, written):
    """Raises UserError, by the flag, where a file to be written is one that is read."""
    read = {Path(path).resolve() for path in sources}
    for path, flag in written.items():
        if Path(path).resolve() in read:
            raise UserError(f"{flag}: would replace {path}, which is read; give another name")
