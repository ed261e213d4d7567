"""VGG19 weights, in torchvision's and timm's naming (the convolutions have one and the same), <-> the Flax tree."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from langfuse_jax.errors import UserError
from langfuse_jax.models.vgg import VGG19
from langfuse_jax.runtime.atomic import atomic_write
from langfuse_jax.weights.files import read_tensors
from langfuse_jax.weights.tables import CONV, Rule, to_flax, to_source

# Place in torchvision's `features` -> our layer.
_LAYERS = {
    0: "conv1_1",
    2: "conv1_2",
    5: "conv2_1",
    7: "conv2_2",
    10: "conv3_1",
    12: "conv3_2",
    14: "conv3_3",
    16: "conv3_4",
    19: "conv4_1",
    21: "conv4_2",
}

TABLE = tuple(
    rule
    for place, ours in _LAYERS.items()
    for rule in (
        Rule(f"features.{place}.weight", f"{ours}/kernel", CONV),
        Rule(f"features.{place}.bias", f"{ours}/bias"),
    )
)

# What comes after conv4_2: torchvision's classifier, timm's pre_logits and head.
IGNORED = (
    r"features\.(23|25|28|30|32|34)\.(weight|bias)",
    r"classifier\.[036]\.(weight|bias)",
    r"pre_logits\.fc[12]\.(weight|bias)",
    r"head\.fc\.(weight|bias)",
)


def load_vgg19(path: str | Path) -> dict[str, dict[str, Array]]:
    """Parameters for `VGG19().apply({"params": ...}, images)` from .safetensors, .pth or .pt, float32.

    The file is torchvision's or timm's vgg19, whole or without what comes after conv4_2, as
    `langfuse-jax convert vgg19` writes it. Raises UserError for a missing, damaged or other network's file.

    Example::

        params = load_vgg19("vgg19-dcbb9e9d.pth")
        features = VGG19().apply({"params": params}, images)
    """
    image = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    tree = jax.eval_shape(VGG19().init, jax.random.key(0), image)["params"]
    shapes = {name: leaf.shape for name, leaf in flatten_dict(tree, sep="/").items()}
    flat = to_flax(read_tensors(path), TABLE, shapes, origin=str(path), ignored=IGNORED)
    return unflatten_dict({name: jnp.asarray(value) for name, value in flat.items()}, sep="/")


def save_vgg19(path: str | Path, params: Mapping[str, Any]) -> None:
    """Writes a .safetensors file in torchvision's naming, for `load_vgg19`. Raises UserError for another suffix.

    Example::

        save_vgg19("vgg19.safetensors", load_vgg19("vgg19-dcbb9e9d.pth"))
    """
    if Path(path).suffix != ".safetensors":
        raise UserError(f"--out {path}: VGG19 is kept in a .safetensors file; give a name that ends so")
    tensors = to_source(flatten_dict(params, sep="/"), TABLE)
    with atomic_write(path) as file:
        file.write(safetensors.numpy.save(tensors, metadata={"format": "pt"}))
