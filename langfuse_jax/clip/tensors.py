"""CLIP weights: tensor names and layouts of Hugging Face and open_clip <-> the Flax tree of models.clip."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from langfuse_jax.weights.tables import CONV, LINEAR, Rule, to_flax, to_source


def _norm(source: str, target: str) -> list[Rule]:
    return [Rule(f"{source}.weight", f"{target}/scale"), Rule(f"{source}.bias", f"{target}/bias")]


def _dense(source: str, target: str) -> list[Rule]:
    return [Rule(f"{source}.weight", f"{target}/kernel", LINEAR), Rule(f"{source}.bias", f"{target}/bias")]


def _blocks(source: str, target: str) -> list[Rule]:
    layer, block = f"{source}.encoder.layers.{{}}", f"{target}/block_{{}}"
    rules = _norm(f"{layer}.layer_norm1", f"{block}/norm1") + _norm(f"{layer}.layer_norm2", f"{block}/norm2")
    for theirs, ours in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "out")):
        rules += _dense(f"{layer}.self_attn.{theirs}", f"{block}/attention/{ours}")
    return rules + _dense(f"{layer}.mlp.fc1", f"{block}/fc1") + _dense(f"{layer}.mlp.fc2", f"{block}/fc2")


def _open_blocks(source: str, target: str) -> list[Rule]:
    layer, block = f"{source}.resblocks.{{}}", f"{target}/block_{{}}"
    kernels, biases = (
        tuple(f"{block}/attention/{part}/{kind}" for part in ("query", "key", "value")) for kind in ("kernel", "bias")
    )
    return [
        *_norm(f"{layer}.ln_1", f"{block}/norm1"),
        *_norm(f"{layer}.ln_2", f"{block}/norm2"),
        Rule(f"{layer}.attn.in_proj_weight", kernels, LINEAR),
        Rule(f"{layer}.attn.in_proj_bias", biases),
        *_dense(f"{layer}.attn.out_proj", f"{block}/attention/out"),
        *_dense(f"{layer}.mlp.c_fc", f"{block}/fc1"),
        *_dense(f"{layer}.mlp.c_proj", f"{block}/fc2"),
    ]


TABLE = (
    Rule("logit_scale", "logit_scale"),
    Rule("vision_model.embeddings.class_embedding", "vision/class_embedding"),
    Rule("vision_model.embeddings.patch_embedding.weight", "vision/patch_embedding", CONV),
    Rule("vision_model.embeddings.position_embedding.weight", "vision/position_embedding"),
    *_norm("vision_model.pre_layrnorm", "vision/pre_norm"),
    *_blocks("vision_model", "vision"),
    *_norm("vision_model.post_layernorm", "vision/post_norm"),
    Rule("visual_projection.weight", "vision/projection/kernel", LINEAR),
    Rule("text_model.embeddings.token_embedding.weight", "text/token_embedding"),
    Rule("text_model.embeddings.position_embedding.weight", "text/position_embedding"),
    *_blocks("text_model", "text"),
    *_norm("text_model.final_layer_norm", "text/final_norm"),
    Rule("text_projection.weight", "text/projection/kernel", LINEAR),
)

OPEN_CLIP_TABLE = (
    Rule("logit_scale", "logit_scale"),
    Rule("visual.class_embedding", "vision/class_embedding"),
    Rule("visual.conv1.weight", "vision/patch_embedding", CONV),
    Rule("visual.positional_embedding", "vision/position_embedding"),
    *_norm("visual.ln_pre", "vision/pre_norm"),
    *_open_blocks("visual.transformer", "vision"),
    *_norm("visual.ln_post", "vision/post_norm"),
    Rule("visual.proj", "vision/projection/kernel"),  # (in, out) already, as text_projection
    Rule("token_embedding.weight", "text/token_embedding"),
    Rule("positional_embedding", "text/position_embedding"),
    *_open_blocks("transformer", "text"),
    *_norm("ln_final", "text/final_norm"),
    Rule("text_projection", "text/projection/kernel"),
)

# Buffers of older files, not weights: counters, and open_clip's causal mask.
IGNORED = (r".*\.position_ids", r"attn_mask")


def params_from_tensors(tensors: Mapping[str, np.ndarray], params: Mapping[str, Any], *, origin: str) -> dict[str, Any]:
    """The parameter tree `{"vision", "text", "logit_scale"}`, float32, shaped like `params` (arrays or shape structs).

    Raises UserError, naming the keys, unless every tensor is used and every parameter filled.
    """
    table = OPEN_CLIP_TABLE if any(name.startswith("visual.") for name in tensors) else TABLE
    shapes = {path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()}
    return unflatten_dict(to_flax(tensors, table, shapes, origin=origin, ignored=IGNORED), sep="/")


def tensors_from_params(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Hugging Face tensors of a parameter tree, in the dtype of its leaves."""
    return to_source(flatten_dict(params, sep="/"), TABLE)
