"""CLIP (Radford et al., 2021): the image and the text tower."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int
from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

from langfuse_jax.errors import UserError

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
BLOCKS = "blocks"  # what `stack_blocks` calls them
_SHARES = "attention"  # how much each token takes from each, by the name that gradients keep it under

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "gelu": partial(nn.gelu, approximate=False),
}


class Attention(nn.Module):
    """Multi-head self-attention over tokens (b, n, width); `causal` lets a token see itself and those before it."""

    heads: int
    causal: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        count, width = tokens.shape[1:]
        # Heads go before tokens as plain batched matmuls: twice as fast on a CPU as einsums over the middle axis.
        dense = partial(nn.Dense, width, dtype=self.dtype, precision="highest")
        query, key, value = (
            dense(name=name)(tokens).reshape(-1, count, self.heads, width // self.heads).swapaxes(1, 2)
            for name in ("query", "key", "value")
        )
        scores = jnp.matmul(query, key.swapaxes(2, 3), precision="highest").astype(jnp.float32)
        scores *= (width // self.heads) ** -0.5
        if self.causal:
            scores = jnp.where(np.tri(count, dtype=bool), scores, -jnp.inf)
        shares = checkpoint_name(nn.softmax(scores).astype(self.dtype), _SHARES)
        mixed = jnp.matmul(shares, value, precision="highest")
        return dense(name="out")(mixed.swapaxes(1, 2).reshape(tokens.shape))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a two-layer perceptron, each added to its input.

    Matrix products run in `dtype`, those of float32 with all its digits on accelerators too; norms and softmax run in
    float32. The sum that runs through the blocks has the dtype of `tokens`.
    """

    heads: int
    hidden: int
    activation: str
    epsilon: float
    causal: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        norm = partial(nn.LayerNorm, epsilon=self.epsilon)
        tokens = tokens + Attention(self.heads, self.causal, self.dtype, name="attention")(norm(name="norm1")(tokens))
        dense = partial(nn.Dense, dtype=self.dtype, precision="highest")
        hidden = _ACTIVATIONS[self.activation](dense(self.hidden, name="fc1")(norm(name="norm2")(tokens)))
        return tokens + dense(tokens.shape[-1], name="fc2")(hidden)


class VisionTower(nn.Module):
    """Images in [0, 1], RGB or gray, -> projected embeddings, not normalised.

    A gray image is taken as RGB with three equal channels, by one kernel. Any (h, w) is resized to (image_size,
    image_size), bilinear without antialiasing (as torch's `interpolate` with align_corners=False does), then
    standardised with `mean` and `std`. Parameters and embeddings are float32 whatever `dtype` the blocks' matrix
    products run in. With `remat` gradients recompute each block instead of keeping what it computed. With `stacked` the
    blocks' parameters are those of `stack_blocks`, and one compiled block runs in a loop: compiling takes a fraction of
    the time, and the numbers are the same.
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    hidden: int
    activation: str
    epsilon: float
    embedding: int
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    stacked: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"]) -> Float[Array, "b d"]:
        batch, size, patch, channels = images.shape[0], self.image_size, self.patch_size, images.shape[3]
        side = size // patch
        images = jax.image.resize(images, (batch, size, size, channels), "bilinear", antialias=False)
        kernel = self.param("patch_embedding", nn.initializers.normal(0.02), (patch, patch, 3, self.width))
        mean, std = jnp.asarray(self.mean), jnp.asarray(self.std)
        shift = jnp.zeros(())
        if channels == 1:
            # One kernel for three equal channels; what standardising subtracts beyond their common mean is a constant.
            level = mean.mean()
            shift = jnp.einsum("yxcd,c->d", kernel.astype(jnp.float32), (level - mean) / std, precision="highest")
            kernel = (kernel.astype(jnp.float32) / std[:, None]).sum(2)
            images = images - level
        else:
            images = (images - mean) / std
        # A strided convolution whose windows do not overlap is a matmul, far faster on a CPU, gradient included.
        images = images[:, : side * patch, : side * patch].reshape(batch, side, patch, side, patch, channels)
        patches = images.transpose(0, 1, 3, 2, 4, 5).reshape(batch, side * side, -1)
        matrix = kernel.reshape(-1, self.width).astype(self.dtype)
        tokens = jnp.matmul(patches.astype(self.dtype), matrix, precision="highest").astype(jnp.float32) + shift
        first = self.param("class_embedding", nn.initializers.normal(self.width**-0.5), (self.width,))
        tokens = jnp.concatenate([jnp.broadcast_to(first, (batch, 1, self.width)), tokens], axis=1)
        tokens += self.param("position_embedding", nn.initializers.normal(0.02), (side * side + 1, self.width))
        tokens = nn.LayerNorm(self.epsilon, name="pre_norm")(tokens).astype(self.dtype)
        make = partial(
            self._block(), self.heads, self.hidden, self.activation, self.epsilon, causal=False, dtype=self.dtype
        )
        if self.stacked:
            loop = nn.scan(_step, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.layers)
            tokens, _ = loop(make(name=BLOCKS), tokens, None)
        else:
            for i in range(self.layers):
                tokens = make(name=f"block_{i}")(tokens)
        pooled = nn.LayerNorm(self.epsilon, name="post_norm")(tokens[:, 0])
        return nn.Dense(self.embedding, use_bias=False, precision="highest", name="projection")(pooled)

    def _block(self) -> type[Block]:
        """The block, with what a gradient keeps of it."""
        if self.remat:
            return nn.remat(Block, prevent_cse=not self.stacked)
        if self.stacked:
            # Of the rest, which a loop would write to memory, all is cheap to compute again.
            policies = jax.checkpoint_policies
            kept = policies.save_from_both_policies(
                policies.dots_with_no_batch_dims_saveable, policies.save_only_these_names(_SHARES)
            )
            return nn.remat(Block, prevent_cse=False, policy=kept)
        return Block


def _step(block: Block, tokens: Float[Array, "b n d"], _: None) -> tuple[Float[Array, "b n d"], None]:
    return block(tokens), None


def stack_blocks(params: Mapping[str, Any]) -> dict[str, Any]:
    """A vision tower's parameters for `stacked`: those of its blocks together, along a new first axis.

    >>> stacked = stack_blocks({"block_0": {"bias": jnp.zeros(3)}, "block_1": {"bias": jnp.ones(3)}, "other": 1})
    >>> stacked["blocks"]["bias"].shape, stacked["other"]
    ((2, 3), 1)
    """
    names = sorted((name for name in params if name.startswith("block_")), key=lambda name: int(name[len("block_") :]))
    rest = {name: leaf for name, leaf in params.items() if name not in names}
    return {**rest, BLOCKS: jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[name] for name in names))}


class TextTower(nn.Module):
    """Token ids -> projected embeddings, not normalised, pooled at the end-of-text token; `dtype` as in VisionTower."""

    vocabulary: int
    length: int
    width: int
    layers: int
    heads: int
    hidden: int
    activation: str
    epsilon: float
    embedding: int
    end_of_text: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, ids: Int[Array, "b n"]) -> Float[Array, "b d"]:
        normal = nn.initializers.normal(0.02)
        words = self.param("token_embedding", normal, (self.vocabulary, self.width))
        positions = self.param("position_embedding", normal, (self.length, self.width))
        tokens = words[ids] + positions[: ids.shape[1]]
        for i in range(self.layers):
            block = Block(self.heads, self.hidden, self.activation, self.epsilon, True, self.dtype, name=f"block_{i}")
            tokens = block(tokens)
        tokens = nn.LayerNorm(self.epsilon, name="final_norm")(tokens)
        # Early configs say 2 where they mean the end-of-text token, which has the largest id of those vocabularies.
        last = jnp.argmax(ids if self.end_of_text == 2 else ids == self.end_of_text, axis=1)
        pooled = jnp.take_along_axis(tokens, last[:, None, None], axis=1)[:, 0]
        return nn.Dense(self.embedding, use_bias=False, precision="highest", name="projection")(pooled)


def towers(
    config: CLIPConfig,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    *,
    dtype: DTypeLike = jnp.float32,
) -> tuple[VisionTower, TextTower]:
    """The two modules that a transformers CLIPConfig describes. Raises UserError for what they cannot express.

    >>> vision, text = towers(CLIPConfig())
    >>> vision.image_size, vision.patch_size, text.length, text.embedding
    (224, 32, 77, 512)
    """
    vision: Any = config.vision_config  # transformers also allows for dictionaries and None
    text: Any = config.text_config
    if config.projection_dim is None:
        raise UserError("config.json: projection_dim is null; give the length of the embeddings")
    for part in (vision, text):
        if part.hidden_act not in _ACTIVATIONS:
            raise UserError(
                f"config.json: hidden_act {part.hidden_act!r} is unknown; use one of {sorted(_ACTIVATIONS)}"
            )
        if part.hidden_size % part.num_attention_heads:
            raise UserError(f"config.json: width {part.hidden_size} does not go into {part.num_attention_heads} heads")
    if vision.num_channels != 3:
        raise UserError(f"config.json: num_channels is {vision.num_channels}; only images with 3 channels are encoded")
    return (
        VisionTower(
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            **_transformer(vision),
            embedding=config.projection_dim,
            mean=tuple(mean),
            std=tuple(std),
            dtype=dtype,
        ),
        TextTower(
            vocabulary=text.vocab_size,
            length=text.max_position_embeddings,
            **_transformer(text),
            embedding=config.projection_dim,
            end_of_text=text.eos_token_id,
            dtype=dtype,
        ),
    )


def _transformer(part: CLIPVisionConfig | CLIPTextConfig) -> dict[str, Any]:
    return {
        "width": part.hidden_size,
        "layers": part.num_hidden_layers,
        "heads": part.num_attention_heads,
        "hidden": part.intermediate_size,
        "activation": part.hidden_act,
        "epsilon": part.layer_norm_eps,
    }


def in_compute_dtype(params: Mapping[str, Any], dtype: DTypeLike) -> dict[str, Any]:
    """A tower's parameters as constants of a tower of that `dtype`: the matrices that it casts anyway, cast once.

    Embeddings of images are the same to the last bit; norms, positions and the projection stay float32.

    >>> params = {"block_0": {"fc1": {"kernel": jnp.ones((2, 2))}}, "post_norm": {"scale": jnp.ones(2)}}
    >>> [x.dtype.name for x in jax.tree.leaves(in_compute_dtype(params, jnp.bfloat16))]
    ['bfloat16', 'float32']
    """

    def cast(path: tuple[str, ...], leaf: Array | np.ndarray) -> Array | np.ndarray:
        return leaf.astype(dtype) if path[-1] == "patch_embedding" or ("block_" in path[0] and leaf.ndim == 2) else leaf

    return unflatten_dict({path: cast(path, leaf) for path, leaf in flatten_dict(params).items()})


def init_params(vision: VisionTower, text: TextTower, key: Array) -> dict[str, Any]:
    """Fresh parameters `{"vision", "text", "logit_scale"}` of two towers.

    >>> params = jax.eval_shape(partial(init_params, *towers(CLIPConfig())), jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    151277313
    """
    vision_key, text_key = jax.random.split(key)
    image = jnp.zeros((1, vision.image_size, vision.image_size, 3))
    return {
        "vision": vision.init(vision_key, image)["params"],
        "text": text.init(text_key, jnp.zeros((1, text.length), jnp.int32))["params"],
        "logit_scale": jnp.asarray(np.log(1 / 0.07), jnp.float32),
    }
