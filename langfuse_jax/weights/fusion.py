"""Fusion weights on disk, for inference: a folder with `fusion.safetensors` and `fusion.json`."""

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import traverse_util
from jax.typing import DTypeLike
from safetensors import SafetensorError

from langfuse_jax.errors import UserError, reason
from langfuse_jax.models.fusion import FusionNet
from langfuse_jax.models.steered import SteeredNet
from langfuse_jax.runtime.atomic import atomic_write
from langfuse_jax.weights.border_rule import LIMITS
from langfuse_jax.weights.tables import listed

TENSORS, METADATA = "fusion.safetensors", "fusion.json"
FORMAT, VERSION = "langfuse_jax.fusion", 1


def network(params: Mapping) -> FusionNet | SteeredNet:
    """The network that parameters are of, recognised by their names; LDFusion's, looped, where it is in doubt.

    >>> from langfuse_jax import Fuser
    >>> type(network(Fuser.load().params)).__name__
    'SteeredNet'
    """
    tree = params.get("params", {})
    if "words_0" in tree:
        return SteeredNet(embedding=tree["words_0"]["kernel"].shape[0])
    return FusionNet(looped=True)


def require_ldfusion(params: Mapping, origin: str) -> None:
    """Raises UserError, naming `origin`, for parameters of another network than LDFusion's.

    Example::

        params, metadata = load_fusion("runs/mine")
        require_ldfusion(params, "runs/mine")
    """
    if not isinstance(network(params), FusionNet):
        raise UserError(f"{origin}: holds a steered network; give the folder of a network of LDFusion's architecture")


def save_fusion(folder: str | os.PathLike, params: dict, *, dtype: DTypeLike = np.float32, metadata: dict) -> None:
    """Writes `params`, as `init` of a `network` returns them, in float16 or float32, and what is to be known of them.

    The tensors are flat, "params/decoder/..."; `metadata` is anything JSON can hold. Each file appears whole or not at
    all. Raises UserError for parameters that are not the network's or that `dtype` cannot hold (NaN, overflow).

    >>> from langfuse_jax import Fuser
    >>> save_fusion("model", Fuser.load().params, dtype=np.float16, metadata={"trained_on": "nothing"})
    >>> params, metadata = load_fusion("model")
    >>> metadata["trained_on"], params["params"]["maps"]["bias"].shape
    ('nothing', (9,))
    """
    if np.dtype(dtype) not in (np.float16, np.float32):
        raise UserError(f"dtype {np.dtype(dtype)}: fusion weights are saved as float16 or float32")
    folder = Path(folder)
    with np.errstate(over="ignore"):
        flat = {key: np.asarray(value, dtype) for key, value in traverse_util.flatten_dict(params, sep="/").items()}
    _check(flat, folder / TENSORS)
    description = json.dumps({**metadata, "format": FORMAT, "version": VERSION}, indent=2)
    # The description goes last: a folder that has it has its tensors.
    with atomic_write(folder / TENSORS) as file:
        file.write(safetensors.numpy.save(flat))
    with atomic_write(folder / METADATA) as file:
        file.write(description.encode() + b"\n")


def load_fusion(folder: str | os.PathLike, *, check: bool = True) -> tuple[dict, dict]:
    """Parameters of a `network`, in float32, and the metadata of a folder written by `save_fusion`.

    Raises UserError, naming the file, when one is missing, damaged or of another version, and naming the tensors when
    they are not exactly those of the network. To `check` that, the network is traced: half a second.

    >>> from langfuse_jax import Fuser
    >>> save_fusion("model", Fuser.load().params, metadata={"steps": 5900})
    >>> load_fusion("model")[1]["steps"]
    5900
    """
    tensors, description = Path(folder) / TENSORS, Path(folder) / METADATA
    for path in (tensors, description):
        if not path.is_file():
            raise UserError(f"{path}: no such file; give a folder with both {TENSORS} and {METADATA}")
    try:
        metadata = json.loads(description.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{description}: cannot be read as JSON ({reason(error)}); copy the folder again") from error
    kind = (metadata.get("format"), metadata.get("version")) if isinstance(metadata, dict) else None
    if kind != (FORMAT, VERSION):
        raise UserError(
            f"{description}: is not version {VERSION} of {FORMAT}; write it with this version of the package"
        )
    for name, (least, most) in LIMITS.items():
        value = metadata.get(name, least)
        if type(value) is not int or not least <= value <= most:
            raise UserError(f"{description}: {name} is {value!r}; it must be from {least} to {most}")
    try:
        flat = safetensors.numpy.load_file(tensors)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{tensors}: cannot be read ({reason(error)}); copy the file again") from error
    if check:
        _check(flat, tensors)
    return traverse_util.unflatten_dict({key: np.float32(value) for key, value in flat.items()}, sep="/"), metadata


def _check(flat: Mapping[str, np.ndarray], path: Path) -> None:
    """The keys and shapes of a fresh network and finite values, or a UserError that names what is wrong."""
    shapes = _shapes(network(traverse_util.unflatten_dict(flat, sep="/")))
    problems = []
    if missing := shapes.keys() - flat.keys():
        problems.append(f"lacks {listed(missing, 5)}")
    if extra := flat.keys() - shapes.keys():
        problems.append(f"has the unknown {listed(extra, 5)}")
    for key in sorted(shapes.keys() & flat.keys()):
        value = flat[key]
        if value.shape != shapes[key]:
            problems.append(f"{key} is {value.shape}, not {shapes[key]}")
        elif value.dtype.kind != "f" or not np.isfinite(value).all():
            problems.append(f"{key} has values that are no finite {value.dtype} numbers")
    if problems:
        more = f"; and {len(problems) - 5} more problems" if len(problems) > 5 else ""
        raise UserError(f"{path}: does not fit the fusion network: {'; '.join(problems[:5])}{more}")


@cache
def _shapes(net: FusionNet | SteeredNet) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's parameters by their keys."""
    image = jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)
    # A key made in here, not outside, is no program to compile.
    tree = jax.eval_shape(lambda *images: net.init(jax.random.key(0), *images), image, image)
    return {key: leaf.shape for key, leaf in traverse_util.flatten_dict(tree, sep="/").items()}
