"""The published fusion weights (two torch state dicts) <-> parameters of `FusionNet`."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from langfuse_jax.errors import UserError
from langfuse_jax.models.fusion import MIN_SIDE, FusionNet
from langfuse_jax.weights.tables import CONV, CONV_TRANSPOSE, LINEAR, Rule, Transform, to_flax, to_source


def _layer(source: str, target: str, transform: Transform) -> list[Rule]:
    return [Rule(f"{source}.weight", f"{target}/kernel", transform), Rule(f"{source}.bias", f"{target}/bias")]


def _content(source: str, target: str) -> list[Rule]:
    rules = []
    for place, ours in ((1, "stem"), (4, "down_0"), (7, "down_1"), (10, "down_2")):
        rules += _layer(f"{source}.{place}", f"{target}/{ours}", CONV)
    return rules + _residual(f"{source}.13", f"{target}/block_0") + _residual(f"{source}.14", f"{target}/block_1")


def _residual(source: str, target: str) -> list[Rule]:
    return _layer(f"{source}.block.1", f"{target}/conv_0", CONV) + _layer(f"{source}.block.5", f"{target}/conv_1", CONV)


def _style(source: str, target: str) -> list[Rule]:
    rules = []
    for place, ours in ((1, "stem"), (3, "down_0"), (5, "down_1"), (7, "down_2"), (10, "head")):
        rules += _layer(f"{source}.{place}", f"{target}/{ours}", CONV)
    return rules


def _up(number: int) -> list[Rule]:
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
# and required by torch's load_state_dict.
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
