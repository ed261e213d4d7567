"""The loss of the compact CLIP: sentences against images, absolutely and as directions, and concepts named by heads."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int8, PRNGKeyArray

from langfuse_jax.compact_clip.concepts import AXES, CONCEPTS, INDEX
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

    Within a window nothing differs but what was done to it, so nothing else can be learnt from most of these pairs.
    """
    scenes = logits.reshape(-1, per_scene, 1, logits.shape[-1])
    true, false = ((truth == value).reshape(scenes.shape) for value in (1, 0))
    pairs = true & false.swapaxes(1, 2)
    losses = nn.softplus(scenes.swapaxes(1, 2) - scenes) * pairs
    counts = jnp.sum(pairs, axis=(0, 1, 2))
    columns = jnp.sum(losses, axis=(0, 1, 2)) / jnp.maximum(counts, 1)
    return jnp.sum(columns) / jnp.maximum(jnp.sum(counts > 0), 1)


def spread_loss(
    sentence: Float[Array, "m d"],
    claims: Bool[Array, "m c"],
    related: Bool[np.ndarray, "c c"],
    *,
    largest: float = 0.3,
) -> Float[Array, ""]:
    """By how much each unit vector's largest cosine to a sentence with unrelated claims passes `largest`: mean square.

    A directional loss looks excellent while its two sentences are nearly one; this keeps them apart.
    """
    claimed = claims.astype(jnp.float32)
    near = claimed @ jnp.asarray(related, jnp.float32) @ claimed.T > 0
    nearest = jnp.max(sentence @ sentence.T - 2 * near, axis=1)
    return jnp.mean(jnp.square(nn.relu(nearest - largest)))


def meaning_loss(
    sentence: Float[Array, "m d"], claims: Bool[Array, "m c"], references: Float[Array, "c d"]
) -> Float[Array, ""]:
    """1 minus the cosine of every sentence to the sum of the references of what it claims, on average.

    Whatever words a sentence has, it means what it claims, and of two claims it means the one as much as the other.
    """
    meant = normalised(claims.astype(jnp.float32) @ jax.lax.stop_gradient(references))
    return jnp.mean(1 - jnp.sum(sentence * meant, axis=-1))


def strength_loss(levels: Float[Array, "n g a"], strengths: Float[Array, "n g a"]) -> Float[Array, ""]:
    """Mean squared error of levels against known strengths; where a strength is NaN, nothing is known."""
    known = ~jnp.isnan(strengths)
    error = jnp.where(known, levels - jnp.where(known, strengths, 0), 0)
    return jnp.sum(jnp.square(error)) / jnp.maximum(jnp.sum(known), 1)


def order_loss(
    logits: Float[Array, "n g m"], strengths: Float[Array, "n g m"], *, least: float = 0.25
) -> Float[Array, ""]:
    """Of two patches of a window, the one of more strength scores higher: by pairs, where strengths differ by `least`.

    The weight of a pair is by how much its strengths differ. NaN is an unknown strength.
    """
    difference = strengths[:, :, None] - strengths[:, None]
    weights = jnp.where(difference >= least, difference, 0.0)  # NaN is never larger
    losses = nn.softplus(logits[:, None] - logits[:, :, None]) * weights
    return jnp.sum(losses) / jnp.maximum(jnp.sum(weights), 1)


def token_loss(logits: Float[Array, "b n c"], known: Int8[Array, "b c"]) -> Float[Array, ""]:
    """Sigmoid loss of every token of an image against what is known of the image, true and false weighted alike.

    Whatever an image suffers from, each part of it does: that is more evidence than the pooled embedding.
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
        "level_scale": jnp.ones(len(AXES), jnp.float32),
        "level_bias": jnp.zeros(len(AXES)),
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
    related: Bool[np.ndarray, "c c"],
    weights: Mapping[str, float],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The total and its terms; a term of weight 0 is not computed.

    Args:
      params: `{"vision", "text", "logit_scale", "heads"}`.
      batch: "images" (b, s, s), gray in [0, 1], `per_scene` of each scene in a row, its visible first, its infrared
        second; "ids" (m, n), token ids of the sentences, first the references of all concepts; "truth" (b, m), whether
        each sentence is true of each image (1, 0, -1 undecided); "known" (b, c), concepts of the images (1, 0, -1);
        "claims" (m, c), concepts of the sentences; "strengths" (n, g, a), of the last g images of each scene on each
        axis, NaN where unknown.
      key: draws the scene whose sources directions are taken from too, whatever it shows.
      related: which concepts' sentences may come near to each other.
      weights: of the terms "modality", "spread", "meaning", "naming", "contrast", "direction", "strength", "order",
        "ranking", "image_heads", "token_heads" and "text_heads".
    """
    truth, known, claims, strengths = (batch[name] for name in ("truth", "known", "claims", "strengths"))
    last = f"block_{vision.layers - 1}"
    image, captured = vision.apply(
        {"params": params["vision"]},
        batch["images"][..., None],
        mutable=["intermediates"],
        capture_intermediates=lambda m, _: m.name == last,
    )
    image, tokens = normalised(image), normalised(captured["intermediates"][last]["__call__"][0][:, 1:])
    sentence = normalised(cast(Array, text.apply({"params": params["text"]}, batch["ids"])))
    references = sentence[: len(CONCEPTS)]
    visible_words, infrared_words = references[INDEX["visible"]], references[INDEX["infrared"]]
    graded = image.reshape(-1, per_scene, image.shape[-1])[:, -strengths.shape[1] :]
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

    def strength() -> Float[Array, ""]:
        minus, plus = (references[jnp.array([INDEX[axis[end]] for axis in AXES.values()])] for end in (0, 1))
        return strength_loss(graded @ (plus - minus).T * heads["level_scale"] + heads["level_bias"], strengths)

    def order() -> Float[Array, ""]:
        # Only sentences of a single concept can be put in order by one strength.
        ends = np.full((len(AXES), len(CONCEPTS)), 0.0, np.float32)
        for row, axis in enumerate(AXES.values()):
            ends[row, [INDEX[axis.minus], INDEX[axis.plus]]] = -1, 1
        signs = jnp.where(claims.sum(1) == 1, jnp.asarray(ends) @ claims.T.astype(jnp.float32), 0)
        of_axes = jnp.where(signs == 0, jnp.nan, strengths[..., None] * signs)
        of_sentences = jnp.nanmax(of_axes, axis=2)  # of the one axis that is not NaN
        scores = jnp.exp(params["logit_scale"]) * graded @ sentence.T
        return order_loss(scores, of_sentences)

    def named(part: str, embeddings: Float[Array, "... d"], scale: float) -> Float[Array, "... c"]:
        return scale * embeddings @ heads[part] + heads[f"{part}_bias"]

    terms: dict[str, Callable[[], Float[Array, ""]]] = {
        "modality": modality,
        "spread": lambda: spread_loss(sentence, claims, related),
        "meaning": lambda: meaning_loss(sentence, claims, references),
        "strength": strength,
        "order": order,
        "ranking": lambda: ranking_loss(logits, truth, per_scene),
        "naming": lambda: naming_loss(logits, truth),
        "contrast": lambda: balanced_sigmoid_loss(logits, truth),
        "direction": direction,
        "image_heads": lambda: balanced_sigmoid_loss(named("image", image, 8.0), known),
        "token_heads": lambda: token_loss(named("token", tokens, 12.0), known),
        "text_heads": lambda: balanced_sigmoid_loss(named("text", sentence, 8.0), claims.astype(jnp.int8)),
    }
    return weighted_sum([(name, weights.get(name, 0.0), value) for name, value in terms.items()])
