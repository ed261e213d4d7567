"""A pretrained CLIP: two towers, their parameters and a tokenizer, from a Hugging Face style folder."""

import hashlib
import importlib.resources
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree
from transformers import CLIPTokenizer

from langfuse_jax.clip.folder import locate, read_clip
from langfuse_jax.clip.tensors import params_from_tensors
from langfuse_jax.clip.vocabulary import Vocabulary, words_of
from langfuse_jax.errors import CutPrompt, UserError
from langfuse_jax.models.clip import MEAN, STD, TextTower, VisionTower, init_params, towers

COMPACT = Path(str(importlib.resources.files("langfuse_jax"))) / "assets" / "compact_clip"


@jax.jit(static_argnums=0)
def _apply(tower: VisionTower | TextTower, params: PyTree, inputs: Array | np.ndarray) -> Array:
    return cast(Array, tower.apply({"params": params}, inputs))


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
      vocabulary: the words it was taught, where its folder lists them (known_words.json).

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
    vocabulary: Vocabulary | None = None

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
            name=name,
            vision=vision,
            text=text,
            params=jax.tree.map(jnp.asarray, params),
            tokenizer=files.tokenizer,
            vocabulary=files.vocabulary,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that identify the weights of both towers."""
        digest = hashlib.sha256()
        for path, leaf in sorted(flatten_dict(self.params, sep="/").items()):
            digest.update(path.encode())
            digest.update(np.asarray(leaf, np.float32).tobytes())
        return digest.hexdigest()[:12]

    def unknown_words(self, sentence: str) -> list[str]:
        """The words of a sentence that this CLIP was never taught, in order; none where its folder lists no words.

        >>> Clip.load().unknown_words("a bright image of a zebra")
        ['zebra']
        """
        return [] if self.vocabulary is None else self.vocabulary.unknown(sentence)

    def encode_text(
        self, texts: Sequence[str], report: Callable[[CutPrompt], None] = warnings.warn
    ) -> Float[Array, "n d"]:
        """Projected text embeddings, not normalised.

        A text longer than the tower reads (77 tokens with OpenAI's) is cut as CLIP does, its end-of-text token kept;
        `report` gets a CutPrompt, which shows what is left.
        """
        tokens = [self._tokens(text, report) for text in texts]
        # Padding after the end of the text is invisible to a causal tower pooled there.
        padded = [ids + [self.tokenizer.eos_token_id] * (self.text.length - len(ids)) for ids in tokens]
        return _apply(self.text, self.params["text"], np.asarray(padded, np.int32))

    def _tokens(self, text: str, report: Callable[[CutPrompt], None]) -> list[int]:
        if self.vocabulary is not None:  # it was taught words, and nothing of what stands between them
            text = " ".join(words_of(text))
        ids = self.tokenizer(text, verbose=False)["input_ids"]
        if len(ids) <= self.text.length:
            return ids
        kept = [*ids[: self.text.length - 1], ids[-1]]
        words = self.tokenizer.decode(kept, skip_special_tokens=True)
        reads = f"is cut to the {self.text.length} that this CLIP reads: {words!r}"
        report(CutPrompt(f"a prompt of {len(ids)} tokens {reads}"))
        return kept

    def encode_image(self, images: Float[Array, "b h w c"] | Float[np.ndarray, "b h w c"]) -> Float[Array, "b d"]:
        """Projected image embeddings, not normalised, of RGB or gray images in [0, 1] of any size."""
        return _apply(self.vision, self.params["vision"], jnp.asarray(images))
