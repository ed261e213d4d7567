"""CLIP (Radford et al., 2021): image and text towers, and a pretrained pair loaded from a Hugging Face style folder."""

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int
from transformers import CLIPConfig, CLIPTokenizer

from langfuse_jax.convert.clip import params_from_tensors
from langfuse_jax.convert.clip_folder import locate, read_clip
from langfuse_jax.errors import CutPrompt, UserError

COMPACT = Path(__file__).resolve().parents[1] / "assets" / "compact_clip"
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

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
        mixed = jnp.matmul(nn.softmax(scores).astype(self.dtype), value, precision="highest")
        return dense(name="out")(mixed.swapaxes(1, 2).reshape(tokens.shape))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a two-layer perceptron, each added to its input.

    Matrix products run in `dtype`, those of float32 with all its digits on accelerators too; the sum that runs through
    the blocks, norms and softmax stay float32.
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
    """Images in [0, 1] -> projected embeddings, not normalised.

    Any (h, w) is resized to (image_size, image_size), bilinear without antialiasing (as torch's `interpolate` with
    align_corners=False does), then standardised with `mean` and `std`. Parameters and embeddings are float32 whatever
    `dtype` the blocks' matrix products run in. With `remat` gradients recompute each block instead of keeping what it
    computed.
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

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        batch, size, patch = images.shape[0], self.image_size, self.patch_size
        side = size // patch
        images = jax.image.resize(images, (batch, size, size, 3), "bilinear", antialias=False)
        images = (images - jnp.asarray(self.mean)) / jnp.asarray(self.std)
        # A strided convolution whose windows do not overlap is a matmul, far faster on a CPU, gradient included.
        kernel = self.param("patch_embedding", nn.initializers.normal(0.02), (patch, patch, 3, self.width))
        images = images[:, : side * patch, : side * patch].reshape(batch, side, patch, side, patch, 3)
        patches = images.transpose(0, 1, 3, 2, 4, 5).reshape(batch, side * side, -1)
        matrix = kernel.reshape(-1, self.width).astype(self.dtype)
        tokens = jnp.matmul(patches.astype(self.dtype), matrix, precision="highest").astype(jnp.float32)
        first = self.param("class_embedding", nn.initializers.normal(self.width**-0.5), (self.width,))
        tokens = jnp.concatenate([jnp.broadcast_to(first, (batch, 1, self.width)), tokens], axis=1)
        tokens += self.param("position_embedding", nn.initializers.normal(0.02), (side * side + 1, self.width))
        tokens = nn.LayerNorm(self.epsilon, name="pre_norm")(tokens)
        make = nn.remat(Block) if self.remat else Block
        for i in range(self.layers):
            block = make(self.heads, self.hidden, self.activation, self.epsilon, False, self.dtype, name=f"block_{i}")
            tokens = block(tokens)
        pooled = nn.LayerNorm(self.epsilon, name="post_norm")(tokens[:, 0])
        return nn.Dense(self.embedding, use_bias=False, precision="highest", name="projection")(pooled)


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


def _transformer(part):
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

    def cast(path, leaf):
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


@jax.jit(static_argnums=0)
def _apply(tower, params, inputs):
    return tower.apply({"params": params}, inputs)


@dataclass(frozen=True, eq=False)
class Clip:
    """A pretrained CLIP: two towers, their parameters and the tokenizer.

    In a jitted loss use the pure form `clip.vision.apply({"params": params}, images)` and give it
    `params = clip.params["vision"]` as an argument.

    Attributes:
      name: "compact" for the CLIP of the package, else the folder or hub id it was loaded from.
      vision: module, (b, h, w, 3) in [0, 1] -> (b, d); resizing and standardising inside.
      text: module, (b, n) token ids -> (b, d).
      params: `{"vision", "text", "logit_scale"}`, float32.
      tokenizer: transformers' CLIPTokenizer.

    >>> clip = Clip.load()
    >>> words = clip.encode_text(["an infrared image", "a clear image"])
    >>> pictures = clip.encode_image(np.full((1, 32, 32, 3), 0.5, np.float32))
    >>> words.shape[0], pictures.shape[0], words.shape[1] == pictures.shape[1] == clip.vision.embedding
    (2, 1, True)
    """

    name: str
    vision: VisionTower
    text: TextTower
    params: Mapping[str, Any]
    tokenizer: CLIPTokenizer

    @classmethod
    def load(cls, name_or_path: str | Path | None = None, *, dtype: DTypeLike = jnp.float32) -> "Clip":
        """The compact CLIP (None), or the one in a folder or under a hub id, in Hugging Face's or open_clip's format.

        A folder holds config.json, model.safetensors (in one file or sharded with an index; else pytorch_model.bin,
        for which torch must be installed) and the tokenizer's files; preprocessor_config.json may give image_mean and
        image_std. Or it holds open_clip_config.json and open_clip_model.safetensors, and the tokenizer's files. With
        dtype bfloat16 both towers compute in it; parameters and embeddings are float32 all the same.

        Raises:
          UserError: a file is missing or unreadable, a hub id cannot be fetched, or a tensor is left over or missing.

        Example::

            Clip.load()  # the compact one
            Clip.load("openai/clip-vit-base-patch32", dtype=jnp.bfloat16)
        """
        if name_or_path is None and not (COMPACT / "config.json").is_file():
            raise UserError(f"{COMPACT} has no CLIP; make one with `langfuse-jax train-clip` or give --clip")
        files = read_clip(COMPACT if name_or_path is None else locate(name_or_path))
        vision, text = towers(files.config, files.mean or MEAN, files.std or STD, dtype=dtype)
        shapes = jax.eval_shape(partial(init_params, vision, text), jax.random.key(0))
        params = params_from_tensors(files.tensors, shapes, origin=str(files.origin))
        name = "compact" if name_or_path is None else str(name_or_path)
        return cls(
            name=name, vision=vision, text=text, params=jax.tree.map(jnp.asarray, params), tokenizer=files.tokenizer
        )

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that identify the weights of both towers."""
        digest = hashlib.sha256()
        for path, leaf in sorted(flatten_dict(self.params, sep="/").items()):
            digest.update(path.encode())
            digest.update(np.asarray(leaf, np.float32).tobytes())
        return digest.hexdigest()[:12]

    def encode_text(self, texts: Sequence[str]) -> Float[Array, "n d"]:
        """Projected text embeddings, not normalised.

        A text longer than the tower reads (77 tokens with OpenAI's) is cut as CLIP does, its end-of-text token kept;
        a CutPrompt warning shows what is left.
        """
        tokens = [self._tokens(text) for text in texts]
        # Padding after the end of the text is invisible to a causal tower pooled there.
        padded = [ids + [self.tokenizer.eos_token_id] * (self.text.length - len(ids)) for ids in tokens]
        return _apply(self.text, self.params["text"], np.asarray(padded, np.int32))

    def _tokens(self, text):
        ids = self.tokenizer(text, verbose=False)["input_ids"]
        if len(ids) <= self.text.length:
            return ids
        kept = [*ids[: self.text.length - 1], ids[-1]]
        words = self.tokenizer.decode(kept, skip_special_tokens=True)
        warnings.warn(
            f"a prompt of {len(ids)} tokens is cut to the {self.text.length} that this CLIP reads: {words!r}",
            CutPrompt,
            stacklevel=2,
        )
        return kept

    def encode_image(self, images: Float[Array, "b h w 3"] | Float[np.ndarray, "b h w 3"]) -> Float[Array, "b d"]:
        """Projected image embeddings, not normalised, of images in [0, 1] of any size."""
        return _apply(self.vision, self.params["vision"], jnp.asarray(images))
