"""The published fusion weights (two torch state dicts) as parameters of `FusionNet`."""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from langfuse_jax.errors import UserError
from langfuse_jax.models.fusion import MIN_SIDE, FusionNet

# How an array changes on its way: torch convolutions are OIHW, transposed ones IOHW, linear layers OI.
TRANSFORMS = {
    "conv": lambda a: a.transpose(2, 3, 1, 0),
    "conv_transpose": lambda a: a.transpose(2, 3, 0, 1),
    "dense": lambda a: a.T,
    "same": lambda a: a,
}
RANKS = {"conv": 4, "conv_transpose": 4, "dense": 2, "same": 1}

_SOURCES = {"1": "visible", "2": "infrared"}

# (file, layer in the torch state dict, module path of FusionNet, transform of its weight).
LAYERS = [
    *(
        ("encoder", f"content_encoder{n}.model.{layer}", f"content_{source}/{path}", "conv")
        for n, source in _SOURCES.items()
        for layer, path in {
            "1": "stem",
            "4": "down_0",
            "7": "down_1",
            "10": "down_2",
            "13.block.1": "block_0/conv_0",
            "13.block.5": "block_0/conv_1",
            "14.block.1": "block_1/conv_0",
            "14.block.5": "block_1/conv_1",
        }.items()
    ),
    *(
        ("encoder", f"style_encoder{n}.model.{layer}", f"style_{source}/{path}", "conv")
        for n, source in _SOURCES.items()
        for layer, path in {"1": "stem", "3": "down_0", "5": "down_1", "7": "down_2", "10": "head"}.items()
    ),
    ("decoder", "model_local.0.block.1", "decoder/block_0/conv_0", "conv"),
    ("decoder", "model_local.0.block.5", "decoder/block_0/conv_1", "conv"),
    ("decoder", "model_local.1.block.1", "decoder/block_1/conv_0", "conv"),
    ("decoder", "model_local.1.block.5", "decoder/block_1/conv_1", "conv"),
    ("decoder", "model_up.0", "decoder/up_0", "conv_transpose"),
    ("decoder", "model_up.1", "decoder/up_norm_0", "norm"),
    ("decoder", "model_up.3", "decoder/up_1", "conv_transpose"),
    ("decoder", "model_up.4", "decoder/up_norm_1", "norm"),
    ("decoder", "model_up.6", "decoder/up_2", "conv_transpose"),
    ("decoder", "model_up.7", "decoder/up_norm_2", "norm"),
    ("decoder", "model_up.10", "decoder/head", "conv"),
    ("decoder", "mlp.model.0", "decoder/mlp/dense_0", "dense"),
    ("decoder", "mlp.model.2", "decoder/mlp/dense_1", "dense"),
    ("decoder", "mlp.model.4", "decoder/mlp/dense_2", "dense"),
]

# (file, torch name) -> (path of the parameter, transform).
TABLE = {}
for _file, _layer, _path, _kind in LAYERS:
    if _kind == "norm":
        TABLE[_file, f"{_layer}.gamma"] = (f"{_path}/gamma", "same")
        TABLE[_file, f"{_layer}.beta"] = (f"{_path}/beta", "same")
    else:
        TABLE[_file, f"{_layer}.weight"] = (f"{_path}/kernel", _kind)
        TABLE[_file, f"{_layer}.bias"] = (f"{_path}/bias", "same")

# Buffers of the published AdaIN layers, which normalise by each image's own statistics and never read them.
IGNORED = re.compile(r"model_local\.[01]\.block\.[26]\.running_(mean|var)")


def fusion_from_torch(encoder: Mapping[str, np.ndarray], decoder: Mapping[str, np.ndarray]) -> dict:
    """The published encoder and decoder state dicts as `FusionNet` parameters: `{"params": ...}`, float32 numpy.

    Raises UserError that lists every source tensor without a use, every parameter left unfilled and every wrong shape.
    """
    want = jax.eval_shape(FusionNet().init, jax.random.key(0), *[jnp.zeros((1, MIN_SIDE, MIN_SIDE, 1))] * 2)
    shapes = {"/".join(key.key for key in path): leaf.shape for path, leaf in jax.tree.leaves_with_path(want["params"])}
    filled, unused, wrong = {}, [], []
    for file, arrays in (("encoder", encoder), ("decoder", decoder)):
        for name, array in arrays.items():
            if file == "decoder" and IGNORED.fullmatch(name):
                continue
            if (file, name) not in TABLE:
                unused.append(f"{file} {name}")
                continue
            path, transform = TABLE[file, name]
            array = np.asarray(array, np.float32)
            shape = array.shape
            if array.ndim == RANKS[transform]:
                array = TRANSFORMS[transform](array)
            filled[path] = array
            if array.shape != shapes[path]:
                wrong.append(f"{file} {name} {shape}")
    unfilled = [f"{file} {name}" for (file, name), (path, _) in TABLE.items() if path not in filled]
    problems = {"unused": unused, "missing": unfilled, "of a wrong shape": wrong}
    if any(problems.values()):
        listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
        raise UserError(
            f"these are not the published fusion weights (give Enc_final.pt and Dec_final.pt): tensors {listed}"
        )
    tree = {}
    for path, array in filled.items():
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = np.ascontiguousarray(array)
    return {"params": tree}
