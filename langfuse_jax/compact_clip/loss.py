"""The loss of the compact CLIP: sentences against images, absolutely and as directions, and concepts named by heads."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int8, PRNGKeyArray

from langfuse_jax.compact_clip.captions import INDEX
from langfuse_jax.losses.total import weighted_sum
from langfuse_jax.models.clip import TextTower, VisionTower


def normalised(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """x / |x|, with a finite gradient at zero."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-8)


def balanced_sigmoid_loss(logits: Float[Array, "b m"], truth: Int8[Array, "b m"]) -> Float[Array, ""]:
    """Sigmoid loss (Zhai et al., 2023) over decided pairs, true and false ones weighted alike in every column.

    `truth` is 1, 0 or -1; pairs of -1 count for nothing, and neither do columns without a true or a false pair.
    """
    true, false = truth == 1, truth == 0

    def mean(values: Float[Array, "b m"], where: Bool[Array, "b m"]) -> Float[Array, " m"]:
        return jnp.sum(values * where, axis=0) / jnp.maximum(jnp.sum(where, axis=0), 1)

    columns = mean(nn.softplus(-logits), true) + mean(nn.softplus(logits), false)
    decided = true.any(axis=0) & false.any(axis=0)
    return jnp.sum(columns * decided) / jnp.maximum(jnp.sum(decided), 1)


def naming_loss(logits: Float[Array, "b m"], truth: Int8[Array, "b m"]) -> Float[Array, ""]:
    """Every true sentence of an image against all its false ones, by softmax (Khosla et al., 2020).

    Makes the sentences of one image comparable, where the sigmoid loss compares the images of one sentence.
    """
    false = jax.nn.logsumexp(jnp.where(truth == 0, logits, -jnp.inf), axis=1, keepdims=True)
    losses = nn.softplus(false - logits) * (truth == 1)
    return jnp.mean(jnp.sum(losses, axis=1) / jnp.maximum(jnp.sum(truth == 1, axis=1), 1))


def directional_cosines(
    images: Float[Array, "s n d"],
    visible: Float[Array, "s d"],
    infrared: Float[Array, "s d"],
    goals: Float[Array, "m d"],
    visible_words: Float[Array, " d"],
    infrared_words: Float[Array, " d"],
) -> Float[Array, "s n m"]:
    """1 minus the language-driven loss of every image towards every goal: the mean of its two cosines."""
    from_visible = normalised(images - visible[:, None]) @ normalised(goals - visible_words).T
    from_infrared = normalised(images - infrared[:, None]) @ normalised(goals - infrared_words).T
    return (from_visible + from_infrared) / 2


def ranking_loss(logits: Float[Array, "b m"], truth: Int8[Array, "b m"], per_scene: int) -> Float[Array, ""]:
    """Every image of which a sentence is true against every one of the same scene of which it is false, by pairs.

    Within a scene nothing differs but what was done to it, so nothing else can be learnt from these pairs.
    """
    scenes = logits.reshape(-1, per_scene, 1, logits.shape[-1])
    true, false = ((truth == value).reshape(scenes.shape) for value in (1, 0))
    pairs = true & false.swapaxes(1, 2)
    losses = nn.softplus(scenes.swapaxes(1, 2) - scenes) * pairs
    counts = jnp.sum(pairs, axis=(0, 1, 2))
    columns = jnp.sum(losses, axis=(0, 1, 2)) / jnp.maximum(counts, 1)
    return jnp.sum(columns) / jnp.maximum(jnp.sum(counts > 0), 1)


def spread_loss(
    sentence: Float[Array, "m d"], claims: Bool[Array, "m c"], *, largest: float = 0.35
) -> Float[Array, ""]:
    """By how much each unit vector's largest cosine to a sentence with other claims passes `largest`: mean square.

    A directional loss looks excellent while its two sentences are nearly one; this keeps them apart.
    """
    claims = claims.astype(jnp.float32)
    nearest = jnp.max(sentence @ sentence.T - 2 * (claims @ claims.T > 0), axis=1)
    return jnp.mean(jnp.square(nn.relu(nearest - largest)))


def token_loss(logits: Float[Array, "b n c"], known: Int8[Array, "b c"]) -> Float[Array, ""]:
    """`balanced_sigmoid_loss` of every token of an image against what is known of the image.

    Whatever a patch suffers from, each part of it does: sixty-four times the evidence of the pooled embedding.
    """
    true, false = known == 1, known == 0
    losses = jnp.where(true, nn.softplus(-logits).mean(1), nn.softplus(logits).mean(1))

    def mean(where: Bool[Array, "b c"]) -> Float[Array, " c"]:
        return jnp.sum(losses * where, axis=0) / jnp.maximum(jnp.sum(where, axis=0), 1)

    return jnp.mean(mean(true) + mean(false))


def init_heads(key: Array, *, tokens: int, width: int, concepts: int) -> dict[str, Any]:
    """Linear heads that name concepts from embeddings, and the loss's own scalars. Dropped after training."""
    shapes = {"image": (width, concepts), "text": (width, concepts), "token": (tokens, concepts)}
    keys = jax.random.split(key, len(shapes))
    heads = {name: 0.1 * jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}
    return heads | {
        "image_bias": jnp.zeros(concepts),
        "text_bias": jnp.zeros(concepts),
        "token_bias": jnp.zeros(concepts),
        "bias": jnp.zeros(()),
        "direction_scale": jnp.full((), 2.0, jnp.float32),
        "modality_scale": jnp.full((), 2.0, jnp.float32),
        "modality_bias": jnp.zeros(()),
    }


def clip_loss(
    params: dict[str, Any],
    batch: Mapping[str, Array],
    key: PRNGKeyArray,
    frozen: None,
    *,
    vision: VisionTower,
    text: TextTower,
    per_scene: int,
    weights: Mapping[str, float],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The total and its terms; a term of weight 0 is not computed.

    Args:
      params: `{"vision", "text", "logit_scale", "heads"}`.
      batch: "images" (b, s, s), gray in [0, 1], `per_scene` of each scene in a row, its visible first, its infrared
        second; "ids" (m, n), token ids of the sentences, the first for visible and the third for infrared images;
        "truth" (b, m), whether each sentence is true of each image (1, 0, -1 undecided); "known" (b, c), concepts of
        the images (1, 0, -1); "claims" (m, c), concepts of the sentences.
      key: draws the scene whose sources directions are taken from too, whatever it shows.
      weights: of the terms "modality", "spread", "naming", "contrast", "direction", "image_heads", "token_heads" and
        "text_heads".
    """
    truth, known, claims = (batch[name] for name in ("truth", "known", "claims"))
    gray = jnp.repeat(batch["images"][..., None], 3, axis=-1)
    last = f"block_{vision.layers - 1}"
    image, captured = vision.apply(
        {"params": params["vision"]}, gray, mutable=["intermediates"], capture_intermediates=lambda m, _: m.name == last
    )
    image, tokens = normalised(image), normalised(captured["intermediates"][last]["__call__"][0][:, 1:])
    sentence = normalised(cast(Array, text.apply({"params": params["text"]}, batch["ids"])))
    visible_words, infrared_words = sentence[0], sentence[2]
    heads = params["heads"]
    logits = jnp.exp(params["logit_scale"]) * image @ sentence.T + heads["bias"]

    def direction() -> Float[Array, ""]:
        scenes = image.reshape(-1, per_scene, image.shape[-1])
        others = truth.reshape(-1, per_scene, truth.shape[-1])[:, 2:].reshape(-1, truth.shape[-1])
        total = jnp.zeros(())
        for offset in (0, jax.random.randint(key, (), 1, len(scenes))):
            visible, infrared = (jnp.roll(scenes[:, source], offset, axis=0) for source in (0, 1))
            cosines = directional_cosines(scenes[:, 2:], visible, infrared, sentence, visible_words, infrared_words)
            scaled = jnp.exp(heads["direction_scale"]) * cosines.reshape(others.shape)
            total += 0.5 * balanced_sigmoid_loss(scaled, others)
        return total

    def modality() -> Float[Array, ""]:
        # Infrared against visible as the directional loss sees it: along the difference of the two sentences.
        logits = jnp.exp(heads["modality_scale"]) * image @ (infrared_words - visible_words)[:, None]
        is_visible, is_infrared = (known[:, INDEX[name]] == 1 for name in ("visible", "infrared"))
        infrared = jnp.where(is_infrared, 1, jnp.where(is_visible, 0, -1)).astype(jnp.int8)[:, None]
        return balanced_sigmoid_loss(logits + heads["modality_bias"], infrared) + ranking_loss(
            logits, infrared, per_scene
        )

    def named(part: str, embeddings: Float[Array, "... d"], scale: float) -> Float[Array, "... c"]:
        return scale * embeddings @ heads[part] + heads[f"{part}_bias"]

    terms: dict[str, Callable[[], Float[Array, ""]]] = {
        "modality": modality,
        "spread": lambda: spread_loss(sentence, claims),
        "naming": lambda: naming_loss(logits, truth),
        "contrast": lambda: balanced_sigmoid_loss(logits, truth),
        "direction": direction,
        "image_heads": lambda: balanced_sigmoid_loss(named("image", image, 8.0), known),
        "token_heads": lambda: token_loss(named("token", tokens, 12.0), known),
        "text_heads": lambda: balanced_sigmoid_loss(named("text", sentence, 8.0), claims.astype(jnp.int8)),
    }
    return weighted_sum([(name, weights.get(name, 0.0), value) for name, value in terms.items()])
